"""Every kind of difference from other converters' Bundles is judged, and the document holds today's counts."""

from __future__ import annotations

import pytest

from tests.golden.bundle_comparison import DOCUMENT, SHARED, compare, leaves, rendered

pytestmark = pytest.mark.skipif(not (SHARED / "hl7v2").is_dir(), reason="no samples: set YIQIAO_SHARED")


def test_every_difference_is_judged_and_the_document_has_the_counts() -> None:
    found = compare()
    assert not found.open
    assert sum(found.bundles.values()) >= 120
    assert sum(found.same.values()) >= 15_000
    assert rendered(found) in DOCUMENT.read_text("utf-8"), "run: python -m tests.golden.bundle_comparison --write"


def test_values_are_compared_without_their_form() -> None:
    ours, theirs = {"a": [{"b": "0.40"}, {"b": "X  y"}], "id": "1"}, {"a": [{"b": 0.4}, {"b": "x Y"}], "id": "2"}
    assert list(leaves(ours)) == list(leaves(theirs)) == [("a.b", "0.4"), ("a.b", "x y")]
