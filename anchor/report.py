"""What a verification says: its steps, in order, in words and for programs, and the error that names a failed step.

Step names are stable. The numbers only say in which order the steps of one receipt were taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from anchor.errors import AnchorError, FormatError, VerificationError
from anchor.trust import Cosignature

STEP_TEXT: Mapping[str, tuple[str, str]] = {
    "trust": ("the trust file can be read", "信任文件可读"),
    "format": ("the receipt can be read", "回执格式正确"),
    "chain": ("receipt and trust file are of one consortium", "回执与信任文件属于同一联盟链"),
    "resource": ("the record at hand is the record the receipt speaks of", "所附记录正是回执所指的记录"),
    "entry": ("the record's entry is in the institution's log", "记录条目在机构日志中"),
    "institution": ("the institution signed its log", "机构已对其日志签名"),
    "transaction": (
        "each transaction was signed by its sender with a key valid then",
        "各交易由发送方以当时有效的密钥签名",
    ),
    "publication": ("the institution published its log's head on the ledger", "机构已将日志检查点发布到账本"),
    "inclusion": ("the transactions are in the ledger's log", "交易在账本日志中"),
    "checkpoint": ("the ledger's head is signed by members", "账本检查点由成员签名"),
    "quorum": ("enough members cosigned the ledger's head", "账本检查点的见证签名达到法定数"),
    "finality": (
        "validators with over two thirds of the power committed the ledger's head",
        "超过三分之二投票权的验证节点已最终确认账本状态",
    ),
    "timestamp": (
        "a time-stamping authority outside the consortium has stamped the ledger's head",
        "联盟之外的时间戳机构已对账本检查点加盖时间戳",
    ),
    "request": ("the requester asked for it", "请求方提出了请求"),
    "grant": ("a grant covered requester and purpose, unrevoked", "授权覆盖请求方与用途且未被撤销"),
    "decision": ("the holder permitted it", "持有方已准许"),
    "order": ("the events happened in the right order", "各事件次序正确"),
    "disclosed": ("the digests are those the holder committed to", "披露摘要与持有方承诺一致"),
    "receive": ("the requester confirmed what arrived", "请求方已确认收到的内容"),
    "state": ("the receipt proves as much as was asked for", "回执达到所要求的状态"),
}
"""Every step's stable name and what it shows, in English and Chinese."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step that held; ``detail`` is a sentence with its facts, empty when there is nothing to add."""

    number: int
    name: str
    detail: str = ""


class StepFailed(VerificationError):
    """A step of a verification that did not hold. ``step`` is its stable name, ``reason`` says why, for people."""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason


class InputUnreadable(FormatError):
    """A receipt or trust file that cannot be read; ``step`` is "format" or "trust", ``reason`` says why."""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason


class Steps:
    """Takes the steps of one verification in order and keeps those that held."""

    def __init__(self) -> None:
        self._taken: list[Step] = []

    def step(self, name: str) -> _Taking:
        """Take one step: any ``AnchorError`` inside becomes ``StepFailed``; what is appended becomes its detail."""
        return _Taking(self._taken, name)

    @property
    def taken(self) -> tuple[Step, ...]:
        """The steps that held so far."""
        return tuple(self._taken)


class _Taking:
    """One step while it is taken, for ``with``."""

    __slots__ = ("_details", "_name", "_taken")

    def __init__(self, taken: list[Step], name: str) -> None:
        self._taken, self._name = taken, name
        self._details: list[str] = []

    def __enter__(self) -> list[str]:
        return self._details

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self._taken.append(Step(len(self._taken) + 1, self._name, "; ".join(self._details)))
        elif isinstance(error, AnchorError):
            unreadable = self._name in ("trust", "format")
            raise (InputUnreadable if unreadable else StepFailed)(self._name, str(error)) from None


@dataclass(frozen=True, slots=True)
class Report:
    """What a receipt proves.

    ``state``: "pending", "committed" or "witnessed", as the trust file at hand judges it. ``org``: whose record it is
    (the holder, for a disclosure). ``subject``: the record version, or the disclosure's request id. ``digest``: hex
    SM3 of the record, None for a disclosure. ``time``: the ledger's block time (Unix seconds), by which the record
    existed or the disclosure was committed; None while pending. ``witnessed``: when the quorum was complete, by the
    cosigners' own clocks. ``facts``: everything else worth telling, by name. ``trust``: the trust file's fingerprint.
    """

    kind: str
    state: str
    chain: str
    org: str
    subject: str
    digest: str | None
    time: int | None
    witnessed: int | None
    cosignatures: tuple[Cosignature, ...]
    trust: str
    steps: tuple[Step, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def independent(self) -> int:
        """How many organisations other than ``org`` itself have cosigned and count."""
        return sum(cosignature.counted and cosignature.org != self.org for cosignature in self.cosignatures)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values, with stable names."""
        return {
            "verified": True,
            "kind": self.kind,
            "state": self.state,
            "chain": self.chain,
            "org": self.org,
            "subject": self.subject,
            "digest": self.digest,
            "time": self.time,
            "witnessed": self.witnessed,
            "independent": self.independent,
            "cosignatures": [
                {"org": c.org, "name": c.name, "time": c.time, "counted": c.counted} for c in self.cosignatures
            ],
            "trust": self.trust,
            "steps": [{"number": s.number, "name": s.name, "detail": s.detail} for s in self.steps],
            "facts": dict(self.facts),
        }

    def to_text(self) -> str:
        """Return the report in plain words, English and Chinese."""
        lines = [_step_line(step) for step in self.steps]
        lines.append("")
        lines += self._conclusion()
        if self.time is not None and not self.independent:
            lines.append(
                f"  NOTE: nobody but {self.org} itself has signed. / 注意：除 {self.org} 自身外无其他成员签名。"
            )
        for cosignature in self.cosignatures:
            note = "" if cosignature.counted else " (not counted / 不计入)"
            lines.append(f"  cosigned / 见证: {cosignature.name} {cosignature.org} {utc(cosignature.time)}{note}")
        lines += [f"  {name}: {value}" for name, value in self.facts.items()]
        lines.append(f"  trust file / 信任文件 SM3: {self.trust}")
        return "\n".join(lines)

    def _conclusion(self) -> list[str]:
        if self.time is None:
            return [
                f"PENDING: only {self.org} itself says that it logged {self.subject}; the ledger does not know it yet.",
                f"待上链：仅有 {self.org} 自己声明已记录 {self.subject}，账本尚未收录。",
            ]
        when = utc(self.time)
        english, chinese = {
            "record": (
                f"{self.org} holds {self.subject} with this content since {when} at the latest",
                f"{self.org} 最迟于 {when} 已持有内容如此的 {self.subject}",
            ),
            "disclosure": (
                f"{self.org} committed to this disclosure (request {self.subject}) at {when}",
                f"{self.org} 于 {when} 在账本上承诺了本次披露（请求 {self.subject}）",
            ),
        }[self.kind]
        if self.witnessed is None:
            return [
                f"COMMITTED: {english}, says the ledger's host; no quorum of members has cosigned it yet.",
                f"已上链：{chinese}；尚无法定数的成员见证。",
            ]
        return [
            f"VERIFIED: {english}; a quorum of members cosigned it by {utc(self.witnessed)}.",
            f"验证通过：{chinese}；法定数的成员于 {utc(self.witnessed)} 前完成见证。",
        ]


def failure_json(error: StepFailed | InputUnreadable) -> dict[str, Any]:
    """Return a failed verification as JSON values, with stable names."""
    return {"verified": False, "step": error.step, "reason": error.reason}


def failure_text(error: StepFailed | InputUnreadable) -> str:
    """Return a failed verification in plain words, English and Chinese."""
    english, chinese = STEP_TEXT[error.step]
    return (
        f"NOT VERIFIED: step {error.step!r} ({english}) fails: {error.reason}.\n"
        f"验证失败：步骤 {error.step}（{chinese}）不成立。"
    )


def utc(time: int) -> str:
    """Return Unix seconds as an ISO 8601 instant in UTC."""
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _step_line(step: Step) -> str:
    english, chinese = STEP_TEXT[step.name]
    detail = f": {step.detail}" if step.detail else ""
    return f"{step.number:>3}. {step.name:<12} {english} / {chinese}{detail}"
