"""Changing values in HOME/config.toml: line by line, so that everything else in it stays as its owner wrote it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from bridge.errors import SettingsError
from bridge.settings import CONFIG_FILE

Value = str | int | bool

_TABLE = re.compile(r"\s*\[([A-Za-z0-9_-]+)\]\s*(?:#.*)?\Z")
_ANY_TABLE = re.compile(r"\s*\[")


def change_settings(home: Path, tables: Mapping[str, Mapping[str, Value]]) -> None:
    """Set values in the settings file of the node at ``home``; the file is replaced whole or not at all."""
    file = home / CONFIG_FILE
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read / 无法读取配置文件") from error
    for table, values in tables.items():
        for name, value in values.items():
            _set(lines, table, name, value)
    fresh = file.with_suffix(".new")
    with fresh.open("w", encoding="utf-8") as stream:
        fresh.chmod(0o600)
        stream.write("\n".join(lines) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(file)


def toml_value(value: object) -> str:
    """Write a value as TOML; JSON's strings, numbers, booleans and arrays are TOML's but for one escape."""
    return re.sub("\x7f", r"\\u007f", json.dumps(value, ensure_ascii=False))


def _set(lines: list[str], table: str, name: str, value: Value) -> None:
    text = f"{name} = {toml_value(value)}"
    start = next((n for n, line in enumerate(lines) if _is_table(line, table)), None)
    if start is None:
        lines += ["", f"[{table}]", text]
        return
    end = next((n for n in range(start + 1, len(lines)) if _ANY_TABLE.match(lines[n])), len(lines))
    key = re.compile(rf"\s*{re.escape(name)}\s*=")
    for number in range(start + 1, end):
        if key.match(lines[number]):
            lines[number] = text
            return
    lines.insert(start + 1, text)


def _is_table(line: str, table: str) -> bool:
    match = _TABLE.match(line)
    return match is not None and match.group(1) == table
