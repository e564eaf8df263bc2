"""Which texts of a sample may stand in a report that leaves the hospital.

A code is shown, what could be somebody's name or number is not. A word of the code tables is a code whatever it looks
like; of the others, every text is masked that also stands where the samples name people, that holds as many digits in a
row as numbers of people do, that has the form of a Chinese name, or that is too long for a code.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from fhir_adapters.codes import table
from fhir_adapters.concepts import CONCEPTS

MAX_CODE_CHARS = 24
"""Longest text that is shown as a code, in characters: codes are short, free text is not."""

MIN_NAME_CHARS = 2
"""Shortest text of the samples' people that counts as a name or number, in characters."""

MIN_HELD_CHARS = 4
"""The same where it stands inside a longer text and is written in Latin letters or digits."""

_DIGITS = re.compile(r"\d{6}")
_SURNAMES = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾萧肖田董潘袁蔡蒋余于杜叶程魏苏吕丁任卢姚沈钟姜崔谭陆范汪廖石"
    "金韦贾夏傅方邹熊白孟秦邱侯江尹薛闫雷龙史陶贺毛郝顾龚邵万覃武钱戴严莫孔向常汤康易乔赖文欧阳"
)
_NAME = re.compile(f"[{_SURNAMES}][一-鿿·]{{1,3}}")
_PERSONAL = frozenset({"Patient", "RelatedPerson", "Practitioner", "Person"})
_TELLING = frozenset({"name", "identifier", "telecom", "address", "birthDate", "contact"})
_TOLD = frozenset({"value", "family", "given", "text", "line", "city", "district", "birthDate"})


def shown(text: str, people: frozenset[str] = frozenset()) -> str:
    """The text itself, or how long it is where it may not be shown. ``people``: what :func:`said_of_people` gave."""
    plain = " ".join(text.split())
    if not plain or plain.upper() in _words():
        return plain
    folded = plain.casefold()
    if (
        len(plain) > MAX_CODE_CHARS
        or _DIGITS.search(plain)
        or _NAME.fullmatch(plain)
        or any(each == folded or (len(each) >= _held(each) and each in folded) for each in people)
    ):
        return f"(masked, {len(plain)} characters / 已隐去)"
    return plain


def said_of_people(resource: Mapping[str, Any]) -> Iterator[str]:
    """Every text by which a converted resource names somebody, case folded."""
    if resource.get("resourceType") in _PERSONAL:
        for name in _TELLING & resource.keys():
            for text in _texts(name, resource[name]):
                if len(text) >= MIN_NAME_CHARS:
                    yield text.casefold()


def _texts(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for inner, each in value.items():
            yield from _texts(inner, each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(name, each)
    elif isinstance(value, str) and name in _TOLD:
        yield value


def _held(text: str) -> int:
    """How long a person's text must be for another text that holds it to be masked: Latin syllables are in any word."""
    return MIN_HELD_CHARS if text.isascii() else MIN_NAME_CHARS


@lru_cache(maxsize=1)
def _words() -> frozenset[str]:
    """Every code and display that the code tables know."""
    found: set[str] = set()
    for name in {name for names in CONCEPTS.values() for name in names}:
        for code, concept in table(name).codes.items():
            found.update((code.upper(), concept.code.upper(), concept.display.upper()))
    return frozenset(found)
