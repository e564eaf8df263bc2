"""What a patient is shown of accesses to the record: who asked, who saw, when, under which authorisation.

Read from the AuditEvents that name the patient, newest first. An AuditEvent is the evidence; what is made of it here is
for people to read. Pure functions; ``bridge.services.patient_view`` fetches.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bridge.services.audit_event import USCC_SYSTEM
from bridge.services.consent_words import PURPOSES, both

REQUEST_SYSTEM = "urn:yiqiao:request"
STYLE = (
    "body{font:11pt/1.5 'Noto Sans CJK SC','Source Han Sans SC',sans-serif;margin:2cm;color:#000}"
    "table{border-collapse:collapse;width:100%}th,td{border:1px solid #666;padding:4px 6px;text-align:left;"
    "vertical-align:top}thead{display:table-header-group}tr{break-inside:avoid}.refused{color:#666}"
    "@media print{body{margin:0}}"
)
"""The page's one style sheet; the answer's Content-Security-Policy names its digest."""

_WHAT = {
    "110113": ("decided on a request", "对调阅请求作出决定"),
    "110106": ("given to the other institution", "提供给其他机构"),
    "110107": ("received from the other institution", "从其他机构接收"),
    "110110": ("erased", "销毁"),
    "rest": ("read or changed here", "在本机构查阅或变更"),
}


@dataclass(frozen=True, slots=True)
class Access:
    """One line of the report. ``who``: institution and person as recorded; ``records``: how many left or came."""

    event: str
    when: str
    what: str
    who: str
    purposes: tuple[str, ...]
    authorisation: str
    permitted: bool
    request: str | None
    records: int

    def value(self) -> dict[str, Any]:
        """Return the line as JSON values."""
        return {name: getattr(self, name) for name in self.__slots__} | {"purposes": list(self.purposes)}


def access_of(event: Mapping[str, Any]) -> Access:
    """Return what an AuditEvent says, for a patient."""
    entities = event.get("entity", ())
    references = [each.get("what", {}).get("reference", "") for each in entities]
    purposes = tuple(code for each in event.get("purposeOfEvent", ()) for code in _codes(each))
    consent = next((each for each in references if each.startswith("Consent/")), None)
    emergency = "BTG" in purposes
    return Access(
        event=str(event["id"]),
        when=str(event["recorded"]),
        what=str(event["type"]["code"]),
        who=_who(event),
        purposes=purposes,
        authorisation="emergency" if emergency else consent or "",
        permitted=event.get("outcome") == "0",
        request=next((_request(each) for each in entities if _request(each)), None),
        records=sum("/_history/" in each for each in references),
    )


def _who(event: Mapping[str, Any]) -> str:
    """Name who asked: the institution first, then the person and the role that it signed for."""
    names: list[str] = []
    for agent in event.get("agent", ()):
        who = agent.get("who", {})
        named = who.get("display") or who.get("identifier", {}).get("value", "")
        code = "".join(_codes(agent.get("type", {})))
        if agent.get("requestor") or code in ("PROV", "IRCP"):
            roles = [role.get("text", "") for role in agent.get("role", ())]
            names.append(" ".join(filter(None, [named, *roles])))
    observer = event["source"]["observer"].get("identifier", {})
    if not names and observer.get("system") == USCC_SYSTEM:
        names = [observer.get("value", "")]
    return ", ".join(dict.fromkeys(filter(None, names)))


def _codes(concept: Mapping[str, Any]) -> Iterable[str]:
    return [str(coding.get("code", "")) for coding in concept.get("coding", ())]


def _request(entity: Mapping[str, Any]) -> str | None:
    identifier = entity.get("what", {}).get("identifier", {})
    return str(identifier["value"]) if identifier.get("system") == REQUEST_SYSTEM else None


def page(accesses: Sequence[Access], *, institution: str, made: str) -> str:
    """Return the report as one printable page in English and Chinese, without names or numbers of the patient."""
    rows = "\n".join(_row(each) for each in accesses)
    empty = "<p>Nobody has asked. / 尚无访问记录。</p>"
    head = (
        "<tr><th>When / 时间</th><th>Who / 访问方</th><th>What / 事项</th><th>Purpose / 目的</th>"
        "<th>Authorisation / 授权依据</th><th>Outcome / 结果</th></tr>"
    )
    table = f"<table><thead>{head}</thead><tbody>\n{rows}\n</tbody></table>" if accesses else empty
    return (
        '<!doctype html><html lang="zh-CN"><head><meta charset="utf-8"><title>Accesses to your record / 病历访问记录'
        f"</title><style>{STYLE}</style></head><body><h1>Accesses to your record / 病历访问记录</h1>"
        f"<p>{html.escape(institution)}, {html.escape(made)}</p>{table}"
        "<p>Each line is an entry of the institution's audit trail; the file of the same report can be checked "
        "offline. Something is wrong? Ask the institution's privacy officer. / 每一行对应机构审计日志中的一条记录，"
        "可用同名文件离线核验；如有异议请联系机构隐私保护负责人。</p></body></html>"
    )


def _row(access: Access) -> str:
    what = _WHAT.get(access.what, (access.what, ""))
    purposes = [both(PURPOSES, code) for code in access.purposes]
    if access.authorisation == "emergency":
        authorisation = f"emergency, reviewed / 紧急调阅，须复核 {access.request or ''}"
    else:
        authorisation = " ".join(filter(None, [access.authorisation, access.request]))
    outcome = "permitted / 准许" if access.permitted else "refused / 拒绝"
    if access.records:
        outcome += f"; {access.records} records / 份记录"
    cells = [access.when, access.who, " / ".join(filter(None, what)), "; ".join(purposes), authorisation, outcome]
    mark = "" if access.permitted else ' class="refused"'
    return f"<tr{mark}>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"
