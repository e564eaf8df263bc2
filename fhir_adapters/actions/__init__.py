"""Action messages of a hospital's platform ("action + XML text" over SOAP) to FHIR transaction Bundles.

    convert(raw, profile)      a SOAP envelope, or the Request in it, to a Bundle
    read(raw, profile)         the same, only read: who sent what about which patient

The rows of a message are rows of the standard views and become what these become, under the same ids.
"""

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from fhir_adapters import tabular
from fhir_adapters.actions.catalogue import ACTIONS, Action
from fhir_adapters.actions.envelope import Envelope, open_envelope
from fhir_adapters.actions.request import ActionRequest, ActionRow, read_request
from fhir_adapters.bundle_entry import entry
from fhir_adapters.profile import DEFAULT_PROFILE, SourceProfile
from fhir_adapters.result import ConversionResult, Issue

__all__ = ["ACTIONS", "ADAPTER", "Action", "ActionRequest", "Message", "convert", "read"]

ADAPTER = "action/1.0"
"""Name and version of this adapter, as lineage records it."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message that came: its envelope, for the answer, and what it asks."""

    envelope: Envelope
    request: ActionRequest


def read(raw: bytes, profile: SourceProfile | None = None) -> Message:
    """Read a message. Raises DecodeError, ParseError (with the path of what is wrong) and UnsupportedMessage."""
    envelope = open_envelope(raw, (profile or DEFAULT_PROFILE).charset)
    return Message(envelope, read_request(envelope.message, envelope.action))


def convert(raw: bytes, profile: SourceProfile | None = None) -> ConversionResult:
    """Convert a message. Raises AdapterError for what cannot be read; doubts about cells are issues."""
    request = read(raw, profile).request
    chosen = profile or DEFAULT_PROFILE
    entries: dict[str, dict[str, Any]] = {}
    issues: list[Issue] = []
    newest = ""
    for view, rows in groupby(request.rows, key=lambda row: row.view):
        listed = list(rows)
        result = tabular.convert_rows(view.name, [row.cells for row in listed], chosen)
        issues += [_placed(issue, listed) for issue in result.issues]
        newest = max(newest, result.bundle.get("timestamp", ""))
        for each in result.bundle.get("entry", ()):
            url = each["request"]["url"]
            if url not in entries or "ifNoneMatch" not in each["request"]:
                entries[url] = _amending(request.action, each, chosen)
    bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "transaction"}
    if newest:
        bundle["timestamp"] = newest
    if entries:
        bundle["entry"] = list(entries.values())
    return ConversionResult(bundle, tuple(each for each in issues if not _is_about_lineage(each)))


def _amending(action: Action, made: dict[str, Any], profile: SourceProfile) -> dict[str, Any]:
    """The entry of a message that says one thing of a resource: what it does not say stays as it is stored."""
    resource = made["resource"]
    elements = action.amends.get(resource["resourceType"])
    if elements is None or "ifNoneMatch" in made["request"]:
        return made
    said = [element for element in elements if element in resource]
    return entry(profile.base_url, made["request"]["url"], resource, mention=False, amends=said)


def _placed(issue: Issue, rows: list[ActionRow]) -> Issue:
    """An issue with its place in the message instead of the row's number."""
    if not issue.location.startswith("row "):
        return issue
    number, _, column = issue.location.removeprefix("row ").partition(", column ")
    row = rows[int(number) - 1]
    return Issue(issue.severity, issue.code, f"{row.place}/{column}" if column else row.place, issue.text)


def _is_about_lineage(issue: Issue) -> bool:
    """A message is not a row of a database: it has no key and no watermark, and lacks nothing for it."""
    return issue.code == "missing" and issue.location.endswith(("/row_key", "/updated_at"))
