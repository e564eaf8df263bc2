"""Takes action messages (SOAP, "action + XML text") into the inbox and answers AA or AE.

AA: kept, readable and convertible; the sender may forget it. AE: kept as failed, with the place of what is wrong; sent
again corrected it is another message. A fault: the envelope cannot be read (kept too), or nothing could be kept, and
then the sender tries again later.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from bridge.errors import Overloaded, StorageError
from bridge.services.conversion import refusal_of
from bridge.storage.inbox import Delivery, Inbox, Refusal
from fhir_adapters import SourceProfile, actions
from fhir_adapters.actions.envelope import Envelope, answer, content_type, fault, open_envelope
from fhir_adapters.actions.reply import acknowledgement
from fhir_adapters.errors import AdapterError

ACTION_FORMAT = "action"
_ANSWER_ID_BYTES = 8


@dataclass(frozen=True, slots=True)
class ActionAnswer:
    """What a sender is answered: body, its type, HTTP status; ``id`` is the message's number in the inbox.

    ``code`` is AA or AE; ``replayed`` says that the message was there before and nothing new was kept.
    """

    body: bytes
    content_type: str
    status: int
    id: int | None = None
    code: str = "AE"
    replayed: bool = False

    @property
    def accepted(self) -> bool:
        """Whether the sender may forget the message."""
        return self.code == "AA"


class ActionIntake:
    """Receives action messages of any source that has a profile."""

    def __init__(
        self, inbox: Inbox, profile_of: Callable[[str], SourceProfile], clock: Callable[[], float] = time.time
    ) -> None:
        self._inbox = inbox
        self._profile_of = profile_of
        self._clock = clock

    def receive(self, source: str, raw: bytes, charset: str = "") -> ActionAnswer:
        """Keep a message and return its answer, after the commit. ``charset`` is what HTTP says of the bytes."""
        profile = self._profile_of(source)
        if charset:
            profile = _with_charset(profile, charset)
        envelope: Envelope | None = None
        delivery = Delivery(source=source, raw=raw, format=ACTION_FORMAT)
        try:
            envelope = open_envelope(raw, profile.charset)
            request = actions.read(raw, profile).request
            delivery = replace(
                delivery, control_id=request.message_id, event=request.action.name, patient=request.patient
            )
            refusal = _first_error(raw, profile)
        except AdapterError as error:
            refusal = refusal_of(error)
        reply = self._reply(delivery.control_id, refusal)
        try:
            accepted = self._inbox.accept(replace(delivery, refusal=refusal, acknowledgement=reply.encode()))
        except (Overloaded, StorageError) as error:
            return ActionAnswer(fault(envelope, "server", error.message), content_type(envelope), 503)
        if envelope is None:
            text = (
                f"{refusal.location}: {refusal.text}"
                if refusal and refusal.location
                else refusal.text
                if refusal
                else ""
            )
            return ActionAnswer(fault(None, "client", text), content_type(None), 500, accepted.id)
        body = answer(envelope, accepted.acknowledgement.decode())
        code = "AE" if refusal else "AA"
        return ActionAnswer(body, content_type(envelope), 200, accepted.id, code, accepted.replayed)

    def _reply(self, message_id: str, refusal: Refusal | None) -> str:
        return acknowledgement(
            "AE" if refusal else "AA",
            message_id,
            answer_id=secrets.token_hex(_ANSWER_ID_BYTES),
            moment=datetime.fromtimestamp(self._clock(), UTC).astimezone(),
            text=refusal.text if refusal else "",
            location=refusal.location if refusal else "",
        )


def _first_error(raw: bytes, profile: SourceProfile) -> Refusal | None:
    """Convert a message to know whether it can be; a row that cannot is the message's fault."""
    for issue in actions.convert(raw, profile).issues:
        if issue.severity == "error":
            return Refusal(issue.code, issue.location, issue.text)
    return None


def _with_charset(profile: SourceProfile, charset: str) -> SourceProfile:
    """The profile with the character set that HTTP names, if it is one: it only counts where the XML says nothing."""
    try:
        "".encode(charset)
    except (LookupError, ValueError):
        return profile
    return replace(profile, charset=charset)
