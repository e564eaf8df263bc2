"""Nothing of a CDA document disappears: it is carried over, named by an issue, or left out for a documented reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from lxml import etree

from fhir_adapters.errors import AdapterError
from tests.golden.cda_carried_over import Carried, left_out

SAMPLES = sorted((Path(__file__).parent / "cda").glob("*.xml"))
SHARED = Path(os.environ.get("YIQIAO_SHARED", Path(__file__).parents[3] / "shared")) / "data" / "cda"
FOREIGN = sorted(SHARED.glob("*.xml"))
IGNORED = left_out()
MAX_FOREIGN_BYTES = 100_000  # each value of a document is a conversion of it

PARTS = (
    '<id root="1.2.3.999" extension="ADDED"/>',
    "<name>Added</name>",
    '<telecom value="tel:999999"/>',
    "<addr><city>Added</city></addr>",
    '<effectiveTime value="20010203"/>',
    '<author><time value="20010203"/><assignedAuthor><id root="1.2.3" extension="A"/></assignedAuthor></author>',
    '<performer><assignedEntity><id root="1.2.3" extension="A"/></assignedEntity></performer>',
    '<participant><participantRole><id root="1.2.3" extension="A"/></participantRole></participant>',
    '<methodCode code="ADDED" codeSystem="1.2.3"/>',
    '<entryRelationship><observation><code code="ADDED" codeSystem="1.2.3"/><value xsi:type="ST">Added</value>'
    "</observation></entryRelationship>",
    "<referenceRange><observationRange><text>Added</text></observationRange></referenceRange>",
    "<desc>Added</desc>",
)
"""What senders may add to a person, a place or a statement, each with something to say."""


def utf8(path: Path) -> bytes:
    """A sample's bytes; those that declare another character set are read as their declaration says."""
    raw = path.read_bytes()
    return (
        raw.decode("gb18030").replace("GB2312", "UTF-8").replace("GB18030", "UTF-8").encode()
        if b"GB" in raw[:60]
        else raw
    )


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_every_value_of_our_samples_is_carried_over_or_named(path: Path) -> None:
    assert Carried(utf8(path)).dropped(IGNORED) == []


@pytest.mark.skipif(not FOREIGN, reason=f"no foreign documents at {SHARED}")
def test_every_value_of_foreign_documents_is_carried_over_or_named() -> None:
    """Whole documents only: what a piece becomes is named after its digest, so that everything changes with it."""
    looked_at = 0
    for path in FOREIGN:
        if path.is_dir() or len(raw := path.read_bytes()) > MAX_FOREIGN_BYTES or b"<ClinicalDocument" not in raw:
            continue
        try:
            document = Carried(raw)
        except (etree.XMLSyntaxError, AdapterError):
            continue  # without the namespaces of a whole document, or of none at all
        assert document.dropped(IGNORED) == [], path.name
        looked_at += 1
    assert looked_at


@pytest.mark.parametrize("path", [each for each in SAMPLES if each.stem.startswith("c0")], ids=lambda path: path.stem)
def test_what_is_added_to_a_chinese_document_is_carried_over_or_named(path: Path) -> None:
    assert Carried(utf8(path)).drops_added(IGNORED, PARTS) == []
