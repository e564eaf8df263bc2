"""Words that somebody wrote into a profile, held against those that exist."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from fhir_adapters.errors import ProfileError

NEARNESS = 0.6
"""How alike two words must be (difflib's ratio, 0 to 1) for one to be suggested instead of the other."""


def suggestion(word: str, known: Iterable[str]) -> str:
    """``; did you mean X? / 是否为 X？`` for the known word nearest to ``word``, "" when none is near."""
    by_plain = {_plain(each): each for each in known}
    near = get_close_matches(_plain(word), list(by_plain), n=1, cutoff=NEARNESS)
    return f"; did you mean {by_plain[near[0]]}? / 是否为 {by_plain[near[0]]}？" if near else ""


def refuse_unknown(table: Mapping[str, Any], known: Iterable[str], place: str = "", what: str = "unknown key") -> None:
    """Raise ProfileError for the first key of ``table`` that is not known, with the nearest one that is."""
    words = tuple(known)
    for key in sorted(set(table) - set(words)):
        raise ProfileError(what + suggestion(key, words), f"{place}.{key}" if place else key)


def _plain(word: str) -> str:
    return word.lower().replace("-", "_").replace(" ", "_")
