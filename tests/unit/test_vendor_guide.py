"""Every command, profile and sample of the vendor guide is run, in both languages, in the order of the text.

A fenced block whose first line names a file is written to it. Of a ``console`` block, ``$ `` begins a command, ``! ``
is its exit code (0 unless said), and every other line is a piece of what it prints.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bridge.cli import main
from bridge.settings import load_settings
from bridge.settings_rules import check_settings
from bridge.source_profiles import load_profiles
from tests.node_home import make_home

DOCS = Path(__file__).parents[2] / "docs"
GUIDES = ("vendor-guide.md", "vendor-guide.zh-CN.md")
_BLOCK = re.compile(r"^```(\w+)(?: ([^\n]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Command:
    arguments: list[str]
    code: int = 0
    printed: list[str] = field(default_factory=list)


def blocks(guide: str) -> list[tuple[str, str, str]]:
    return [(kind, name or "", body) for kind, name, body in _BLOCK.findall((DOCS / guide).read_text("utf-8"))]


def commands(body: str) -> list[Command]:
    found: list[Command] = []
    for line in body.splitlines():
        if line.startswith("$ "):
            found.append(Command(line.split()[2:]))
        elif line.startswith("! "):
            found[-1].code = int(line[2:])
        elif line.strip():
            found[-1].printed.append(line.strip())
    return found


@pytest.mark.parametrize("guide", GUIDES)
def test_the_guide_does_what_it_says(
    guide: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = 0
    for kind, name, body in blocks(guide):
        if kind == "console":
            for command in commands(body):
                with pytest.raises(SystemExit) as exit:
                    main(command.arguments)
                shown = "".join(capsys.readouterr())
                assert int(exit.value.code or 0) == command.code, shown
                assert not [line for line in command.printed if line not in shown], shown
                ran += 1
        elif name and name != "config":
            file = tmp_path / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(body.replace("\n", "\r") if file.suffix == ".hl7" else body, "utf-8")
    assert ran >= 7
    assert "<script" not in (tmp_path / "kq-report.html").read_text("utf-8")


@pytest.mark.parametrize("guide", GUIDES)
def test_a_node_takes_the_sources_of_the_guide(guide: str, tmp_path: Path) -> None:
    listed = blocks(guide)
    config = next(body for _, name, body in listed if name == "config")
    home = make_home(tmp_path / "node").home
    with (home / "config.toml").open("a", encoding="utf-8") as settings_file:
        settings_file.write(config.partition("[[sources]]")[1] + config.partition("[[sources]]")[2])
    for _, name, body in listed:
        if name in ("kq.toml", "kq-db.toml"):
            (home / name).write_text(body, "utf-8")
    settings = load_settings(home, {"YIQIAO_MLLP__SOURCE": "kq"})
    check_settings(settings)
    assert [source.profile for source in settings.sources][-2:] == ["kq.toml", "kq-db.toml"]
    assert set(load_profiles(settings, settings.key_store())) >= {"kq", "kq-db"}


def test_both_languages_show_the_same_files_and_commands() -> None:
    english, chinese = (
        [(kind, name, body) for kind, name, body in blocks(guide) if kind != "text"] for guide in GUIDES
    )
    plain = [[re.sub(r"\s*#.*", "", body) for _, _, body in each] for each in (english, chinese)]
    assert plain[0] == plain[1]
