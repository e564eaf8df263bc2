"""Acknowledgements (HL7 v2.5 chapter 2.9): MSH, MSA and, for a refusal, ERR with the place and never the content.

The answer speaks the message's own character set and delimiters, with sender and receiver exchanged.
"""

import re
from datetime import datetime

from fhir_adapters.hl7v2.header import Header
from fhir_adapters.hl7v2.message import STANDARD

ACCEPTED = frozenset({"AA", "CA"})
CODES = ACCEPTED | {"AE", "AR", "CE", "CR"}
"""HL7 table 0008: application and commit accept, error, reject."""

_CONTROLS = dict.fromkeys([*range(0x20), 0x7F])

_PLACE = re.compile(r"([A-Z][A-Z0-9]{2})(?:\[(\d+)\])?(?:-(\d+)(?:\.(\d+))?)?")

# HL7 table 0357, by acknowledgement code: what is wrong in general; the place says where.
_CONDITIONS = {
    "AE": ("207", "Application error"),
    "CE": ("207", "Application error"),
    "AR": ("207", "Application error"),
    "CR": ("207", "Application error"),
}
_UNSUPPORTED = ("200", "Unsupported message type")


def acknowledge(
    header: Header | None,
    code: str,
    text: str = "",
    error_location: str = "",
    *,
    time: datetime,
    control_id: str,
) -> bytes:
    """Build the answer to a message.

    Args:
        header: of the message answered; None when it could not be read, for an answer in the standard delimiters.
        code: AA, AE, AR, CA, CE or CR.
        text: what a person may read; must hold no patient data (the caller's errors do not).
        error_location: ``PID-7`` or ``PID[1]-7``, "" when the whole message is meant.
        time: of the answer; written with its offset when it has one.
        control_id: MSH-10 of the answer itself.

    Raises:
        ValueError: an unknown code.
    """
    if code not in CODES:
        raise ValueError("unknown acknowledgement code")
    stamp = time.strftime("%Y%m%d%H%M%S%z")
    version = (header.version if header else "") or "2.5"
    kind = f"ACK^{header.trigger}^ACK" if header and header.trigger else "ACK"
    # Header fields are raw text that the parser put into standard delimiters: they go back as they are.
    sender = (header.receiving_application, header.receiving_facility) if header else ("", "")
    receiver = (header.sending_application, header.sending_facility) if header else ("", "")
    processing = (header.processing_id if header else "") or "P"
    msh = ["MSH", "^~\\&", *sender, *receiver, stamp, "", kind, control_id, processing, version]
    if header and header.declared_charset:
        msh += [""] * 5 + [header.declared_charset]
    accepted = code in ACCEPTED
    msa = ["MSA", code, header.control_id if header else ""]
    if not accepted:
        msa.append(_escaped(text))
    segments = [msh, msa]
    if not accepted:
        segments.append(_err(code, text, error_location, version))
    # What a sender put into a field of its own may hold MLLP's block characters: they would frame the answer anew.
    answer = "".join("|".join(segment).translate(_CONTROLS) + "\r" for segment in segments)
    return _encoded(answer, header)


def _err(code: str, text: str, error_location: str, version: str) -> list[str]:
    """ERR: ERR-1 up to v2.4 (segment, sequence, field, code), ERR-2 to ERR-8 from v2.5 on."""
    condition = _UNSUPPORTED if code in ("AR", "CR") and "type" in text else _CONDITIONS[code]
    place = _PLACE.fullmatch(error_location)
    segment, sequence, number, component = place.groups(default="") if place else ("", "", "", "")
    sequence = sequence or ("1" if segment else "")
    if version in ("2.1", "2.2", "2.3", "2.3.1", "2.4"):
        return ["ERR", "^".join((segment, sequence, number, "&".join((*condition, "HL70357"))))]
    location = "^".join((segment, sequence, number, "1" if component else "", component)).rstrip("^")
    return ["ERR", "", location, "^".join((*condition, "HL70357")), "E", "", "", "", _escaped(text)]


def _escaped(text: str) -> str:
    for character, letter in (("\\", "E"), ("|", "F"), ("^", "S"), ("&", "T"), ("~", "R")):
        text = text.replace(character, f"\\{letter}\\")
    return " ".join(text.split())


def _encoded(answer: str, header: Header | None) -> bytes:
    if header is None:
        return answer.encode("utf_8")
    own = header.delimiters
    if own[:5] != STANDARD:
        table = {ord(standard): mine for standard, mine in zip(STANDARD, own[:5], strict=False)}
        head, rest = answer[:8], answer[8:]
        answer = head[:3] + own + rest.translate(table)
    # A text of ours may hold characters that the sender's set lacks; the codes and ids never do.
    return answer.encode(header.charset, "replace")
