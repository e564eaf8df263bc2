"""Narrative (Section.text) as FHIR XHTML: a fixed list of elements and attributes comes through, text always does.

The list is a stylesheet of our own (``narrative.xsl``) that libxslt runs; it can reach neither files nor network.
"""

import threading
from copy import copy
from functools import lru_cache
from importlib.resources import files

from lxml import etree

from fhir_adapters.cda.context import Conversion, Json
from fhir_adapters.xml.tree import V3, Element, select

XHTML = "http://www.w3.org/1999/xhtml"
MAX_NARRATIVE_CHARS = 1024 * 1024
"""Longest narrative of a section, in characters (FHIR R4, data type string)."""

_NAMESPACES = {"v3": V3}
_TEXTS = etree.XPath("//v3:section/v3:text", namespaces=_NAMESPACES)
_READABLE = etree.XPath("boolean(normalize-space(.))")
_LOST = etree.XPath(
    "descendant::v3:renderMultiMedia | descendant::v3:linkHtml[@href and not(starts-with(@href, '#'))]",
    namespaces=_NAMESPACES,
)
_MAY_BE_LOST = (f"{{{V3}}}renderMultiMedia", f"{{{V3}}}linkHtml")
_NOTHING = etree.XSLTAccessControl.DENY_ALL  # type: ignore[attr-defined]
_local = threading.local()


@lru_cache(maxsize=1)
def _stylesheet() -> bytes:
    return files("fhir_adapters.cda").joinpath("narrative.xsl").read_bytes()


def _transform() -> etree.XSLT:
    """The compiled stylesheet; one a thread, because a transformation keeps its last messages in it."""
    ready = getattr(_local, "transform", None)
    if ready is None:
        parser = etree.XMLParser(no_network=True, resolve_entities=False, load_dtd=False)
        tree = etree.fromstring(_stylesheet(), parser)
        ready = _local.transform = etree.XSLT(tree, access_control=_NOTHING)
    return ready


class Narratives:
    """The narratives of one document, all transformed at once when the first is asked for."""

    def __init__(self, root: Element) -> None:
        self._root = root
        self._divs: dict[Element, Element] | None = None
        self._lost: dict[Element, list[Element]] = {}

    def of(self, conv: Conversion, el: Element | None, status: str = "additional") -> Json | None:
        """The Narrative of a section's text; None when there is none to read (txt-2)."""
        if el is None or not _READABLE(el):
            return None
        if self._divs is None:
            texts = select(_TEXTS, self._root)
            # A transformation copies what it is given: the texts are a small part of a document.
            apart = etree.Element("texts")
            apart.extend(copy(text) for text in texts)
            self._divs = dict(zip(texts, _transform()(apart).getroot(), strict=True))
            if next(apart.iter(*_MAY_BE_LOST), None) is not None:
                self._lost = {text: found for text in texts if (found := select(_LOST, text))}
        for lost in self._lost.get(el, ()):
            conv.issue("information", "narrative-reference", lost, "a reference out of the narrative is left out")
        div = etree.tostring(self._divs[el], encoding="unicode", with_tail=False)
        if len(div) > MAX_NARRATIVE_CHARS:
            text = f"a narrative of more than {MAX_NARRATIVE_CHARS} characters is left out"
            conv.issue("warning", "too-long", el, text)
            return None
        return {"status": status, "div": div}


def generated(lines: list[tuple[str, str]]) -> Json | None:
    """A Narrative made of pairs of title and text ("" for none); None without any."""
    if not lines:
        return None
    paragraphs = "".join(
        f"<p><b>{_escaped(title)}</b>：{_escaped(text)}</p>" if text else f"<p>{_escaped(title)}</p>"
        for title, text in lines
    )
    return {"status": "generated", "div": f'<div xmlns="{XHTML}">{paragraphs}</div>'}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
