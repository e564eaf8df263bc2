"""The answer to an action message, in the form of HL7 V3's MCCI_IN000002UV01: AA, taken; AE, not."""

from datetime import datetime
from typing import Literal
from xml.sax.saxutils import escape, quoteattr

MESSAGE_ID_ROOT = "2.16.156.10011.2.5.1.1"
"""Root of message ids, as platforms use it (domain practice, not taken from the standard's text)."""

Code = Literal["AA", "AE"]


def acknowledgement(
    code: Code, message_id: str, *, answer_id: str, moment: datetime, text: str = "", location: str = ""
) -> str:
    """The acknowledgement of a message. ``text`` and ``location`` say what was wrong; they hold no content of it."""
    detail = ""
    if text:
        where = f"<location>{escape(location)}</location>" if location else ""
        detail = f'<acknowledgementDetail typeCode="E"><text value={quoteattr(text)}/>{where}</acknowledgementDetail>'
    return (
        '<?xml version="1.0"?><MCCI_IN000002UV01 xmlns="urn:hl7-org:v3" ITSVersion="XML_1.0">'
        f'<id>{_item(answer_id)}</id><creationTime value="{moment:%Y%m%d%H%M%S}"/>'
        '<interactionId><item root="2.16.156.10011.2.5.1.2" extension="MCCI_IN000002UV01"/></interactionId>'
        f'<acknowledgement typeCode="{code}"><targetMessage><id>{_item(message_id)}</id></targetMessage>{detail}'
        "</acknowledgement></MCCI_IN000002UV01>"
    )


def _item(extension: str) -> str:
    return f'<item root="{MESSAGE_ID_ROOT}" extension={quoteattr(extension)}/>'
