"""The report of a profile check: as data, as text for a terminal, and as one page that a vendor hands over.

The page is whole in itself: no script, no style sheet and no image from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from fhir_adapters import SourceProfile
from fhir_adapters.concepts import CONCEPTS
from fhir_adapters.coverage import CoverageReport
from fhir_adapters.coverage.masking import shown

MAX_TEXT_ROWS = 40
"""Rows of a kind that a terminal is shown; --json and --html have all."""

VERSION = "yiqiao 0.1.0"

_STATES = {"unused": "not mapped / 未映射", "partly": "in part / 部分映射", "kept": "kept as extension / 保留为扩展"}


def report_data(
    profile: SourceProfile, kinds: Mapping[str, int], samples: Sequence[str], report: CoverageReport
) -> dict[str, Any]:
    """Return the report as a JSON object. Names of samples are masked as codes are: they name patients now and then."""
    names = [shown(Path(each).stem) + Path(each).suffix for each in samples]
    return {
        "profile": profile.name,
        "program": VERSION,
        "kinds": dict(sorted(kinds.items())),
        "samples": names,
        **report.as_dict(),
        "code_maps": _code_maps(report),
    }


def as_text(told: Mapping[str, Any]) -> str:
    """Return the report for a terminal: the sums, then what wants attention."""
    fields = told["fields"]
    mapped = sum(each["state"] in ("mapped", "kept") for each in fields)
    kinds = ", ".join(f"{kind} {count}" for kind, count in told["kinds"].items())
    lines = [
        f"profile / 配置：{told['profile']} ({kinds})",
        f"samples / 样本：{len(told['samples'])} files, {told['messages']} messages, {told['converted']} converted",
        "resources / 资源：" + (", ".join(f"{kind} {count}" for kind, count in told["resources"].items()) or "none"),
        f"fields / 字段：{mapped} of {len(fields)} mapped / 已映射",
    ]
    lines += _rows("refused / 拒收", [_fault(each) for each in told["refused"]])
    lines += _rows("not valid FHIR R4 / 校验未通过", [_fault(each) for each in told["invalid"]])
    codes = [f"{each['concept']}: {each['code']}  {each['place']} ×{each['count']}" for each in told["codes"]]
    lines += _rows("codes without a map / 未映射的代码", codes)
    if told["code_maps"]:
        lines += ["  add to the profile / 加入配置：", *(f"    {line}" for line in told["code_maps"].splitlines())]
    unused = [f"{each['place']} ×{each['seen']}  {_STATES[each['state']]}"
              for each in fields if each["state"] != "mapped"]  # fmt: skip
    lines += _rows("fields that hold a value and are not mapped / 有值而未映射的字段", unused)
    doubts = [f"{each['place']}: {each['text']} ({each['code']}) ×{each['count']}" for each in told["remarks"]]
    lines += _rows("remarks / 提示", doubts)
    lines.append("all mapped and valid / 全部通过" if told["clean"] else "not complete yet / 尚未完成")
    return "\n".join(lines)


def as_html(told: Mapping[str, Any]) -> str:
    """Return the report as one HTML page; everything from samples and profile is escaped."""
    return _template().render(told=told, states={"mapped": "mapped / 已映射", **_STATES})


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template("profile_report.html")


def _fault(fault: Mapping[str, Any]) -> str:
    place = f"{fault['place']}: " if fault["place"] else ""
    return f"{place}{fault['text']} ×{fault['count']} (sample / 样本 {fault['sample']})"


def _rows(title: str, rows: Sequence[str]) -> list[str]:
    if not rows:
        return []
    more = [f"  … {len(rows) - MAX_TEXT_ROWS} more: --json, --html / 其余见报告"] if len(rows) > MAX_TEXT_ROWS else []
    return [f"{title} ({len(rows)}):", *(f"  {row}" for row in rows[:MAX_TEXT_ROWS]), *more]


def _code_maps(report: CoverageReport) -> str:
    """Return the tables of the profile that would map the codes, their meanings left to fill in."""
    wanted: dict[str, dict[str, None]] = {}
    for each in report.codes:
        if each.concept in CONCEPTS and each.code and not each.code.startswith("(masked"):
            wanted.setdefault(each.concept, {})[each.code] = None
    lines: list[str] = []
    for concept, codes in wanted.items():
        lines.append(f"[code_maps.{concept}]")
        lines += [f'"{_quoted(code)}" = ""' for code in codes]
    return "\n".join(lines)


def _quoted(code: str) -> str:
    return code.replace("\\", "\\\\").replace('"', '\\"')
