"""Canonical JSON over generated texts: one fixed point, nothing lost, and only its own error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anchor import canonical
from anchor.canonical import CanonicalError, Lexeme, canonicalize, dump, load

NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,6})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
TRICKY = st.text('a0":.,{}e[]\\', max_size=8)  # text that looks like JSON to whoever searches it
PLAIN = st.none() | st.booleans() | st.integers(-(10**15), 10**15) | TEXTS | TRICKY
WITH_LEXEMES = PLAIN | NUMBERS.map(Lexeme)


def documents(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS | TRICKY, inner, max_size=4),
        max_leaves=12,
    )


@st.composite
def spellings(
    draw: st.DrawFn, leaves: st.SearchStrategy[Any] = WITH_LEXEMES, repeats: bool = False
) -> tuple[Any, bytes]:
    """A value and a JSON text of it: any spacing, member order and escapes; with ``repeats``, repeated members."""
    value = draw(documents(leaves))
    return value, write(draw, value, repeats)


def write(draw: st.DrawFn, value: Any, repeats: bool) -> bytes:
    space = draw(st.sampled_from([b"", b"", b" ", b"\n\t"]))
    if isinstance(value, Lexeme):
        return space + value.lexeme.encode()
    if isinstance(value, list):
        return space + b"[" + b",".join(write(draw, item, repeats) for item in value) + b"]" + space
    if isinstance(value, dict):
        members = draw(st.permutations(list(value.items())))
        if repeats and members and draw(st.integers(0, 5)) == 0:
            members = [*members, members[0]]
        written = [write(draw, name, repeats) + b":" + write(draw, item, repeats) for name, item in members]
        return b"{" + b",".join(written) + b"}" + space
    return space + json.dumps(value, ensure_ascii=draw(st.booleans())).encode() + space


def check_that_the_paths_agree(text: bytes) -> None:
    try:
        slow = canonical._canonicalize_slowly(text)
    except CanonicalError:
        with pytest.raises(CanonicalError):  # the quick path takes nothing that has no form
            canonicalize(text)
        return
    assert canonicalize(text) == slow


@settings(max_examples=100, deadline=None)
@given(spellings(WITH_LEXEMES, repeats=True))
def test_the_quick_path_equals_the_slow_one(case: tuple[Any, bytes]) -> None:
    check_that_the_paths_agree(case[1])


@settings(max_examples=100, deadline=None)
@given(spellings(PLAIN, repeats=True))
def test_the_quick_path_equals_the_slow_one_without_decimals(case: tuple[Any, bytes]) -> None:
    check_that_the_paths_agree(case[1])


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(TRICKY, NUMBERS.map(Lexeme) | TRICKY, max_size=5), st.data())
def test_text_that_looks_like_numbers_is_not_taken_for_one(value: dict[str, Any], data: st.DataObject) -> None:
    form = dump(value)
    check_that_the_paths_agree(form)
    assert canonicalize(form) == form
    check_that_the_paths_agree(write(data.draw, value, True))


@settings(max_examples=100, deadline=None)
@given(spellings())
def test_one_value_has_one_form_however_it_is_spelled(case: tuple[Any, bytes]) -> None:
    value, text = case
    form = dump(value)
    assert canonicalize(text) == form
    assert canonicalize(form) == form


@settings(max_examples=100, deadline=None)
@given(documents(WITH_LEXEMES))
def test_load_reverses_dump_and_the_form_is_a_fixed_point(value: Any) -> None:
    text = dump(value)
    assert canonicalize(text) == text
    assert dump(load(text)) == text
    assert json.loads(text, parse_int=str, parse_float=str) == spelled(value)


def spelled(value: Any) -> Any:
    """The value with every number as its text."""
    if isinstance(value, list):
        return [spelled(item) for item in value]
    if isinstance(value, dict):
        return {name: spelled(item) for name, item in value.items()}
    if isinstance(value, Lexeme):
        return value.lexeme
    return str(value) if type(value) is int else value


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=64) | spellings().map(lambda case: case[1][:-1]))
def test_only_its_own_error_comes_out(text: bytes) -> None:
    for read in (canonicalize, load):
        try:
            read(text)
        except CanonicalError:
            continue


@settings(max_examples=100, deadline=None)
@given(spellings(), st.data())
def test_a_flipped_byte_never_escapes_the_error_tree(case: tuple[Any, bytes], data: st.DataObject) -> None:
    text = case[1]
    at = data.draw(st.integers(0, len(text) - 1))
    mutated = text[:at] + data.draw(st.binary(min_size=1, max_size=2)) + text[at + 1 :]
    try:
        form = canonicalize(mutated)
    except CanonicalError:
        return
    assert canonicalize(form) == form
    assert json.loads(form) == json.loads(mutated.decode())
