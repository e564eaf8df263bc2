"""config/default.toml shows every kind of source and every setting of it, as it would be written."""

from __future__ import annotations

import tomllib
from typing import get_args

from bridge.settings import CONFIG_DIRECTORY, SourceSettings


def shown() -> list[SourceSettings]:
    text = (CONFIG_DIRECTORY / "default.toml").read_text("utf-8")
    lines = text[text.index("# [[sources]]") :].splitlines()
    table = tomllib.loads("\n".join(line.removeprefix("#") for line in lines))
    return [SourceSettings(**each) for each in table["sources"]]


def test_every_kind_of_source_is_shown() -> None:
    assert {each.kind for each in shown()} == set(get_args(SourceSettings.model_fields["kind"].annotation))


def test_every_setting_of_a_source_is_shown() -> None:
    assert {name for each in shown() for name in each.model_fields_set} == set(SourceSettings.model_fields)


def test_what_is_shown_as_usual_is_the_default() -> None:
    named = {"name", "kind", "profile", "url", "views", "path", "poll_seconds"}
    for each in shown():
        for name in each.model_fields_set - named:
            assert getattr(each, name) == SourceSettings.model_fields[name].default, name
