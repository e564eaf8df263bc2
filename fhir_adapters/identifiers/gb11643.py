"""公民身份号码, GB 11643-1999: six digits of region, eight of birth date, three of sequence, one check character.

Also taken: the 15-digit form it replaced (upgraded), residence permits of Hong Kong, Macao and Taiwan residents
(GB 11643 form, regions 81, 82, 83) and the 2023 permanent residence card of foreigners (region field led by 9).
A number that fails is kept by its adapter and flagged, never dropped: it is what the source calls the patient.
"""

import re
from dataclasses import dataclass
from datetime import date

from fhir_adapters.identifiers.normalize import full_width_to_ascii, trimmed

_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECK_CHARACTERS = "10X98765432"
_FORM_18 = re.compile(r"[0-9]{17}[0-9X]")
_FORM_15 = re.compile(r"[0-9]{15}")

# GB/T 2260 provinces, municipalities and regions; 81-83 by the residence permit rules of 2018.
_PROVINCES = frozenset(re.findall("..", "1112131415212223313233343536374142434445465051525354616263646571818283"))
_FOREIGN_RESIDENT = "9"

EARLIEST_BIRTH = date(1850, 1, 1)
"""Birth dates before this are typing errors: nobody registered since GB 11643 began was born earlier."""


@dataclass(frozen=True, slots=True)
class ResidentId:
    """What a resident identity number says.

    ``value`` is the 18-character form (or the cleaned text, when neither form fits); ``problem`` is "" for a valid
    number, else one of "length", "characters", "region", "birth-date", "check-digit". ``birth_date`` (YYYY-MM-DD) and
    ``gender`` ("male", "female") are "" unless valid.
    """

    value: str
    problem: str
    birth_date: str = ""
    gender: str = ""
    upgraded: bool = False

    @property
    def valid(self) -> bool:
        """Whether every rule of the standard that can be checked offline holds."""
        return not self.problem


def check_resident_id(text: str, latest_birth: date | None = None) -> ResidentId:
    """Clean, upgrade and check a number. ``latest_birth`` refuses later birth dates (the clock is the caller's)."""
    number = trimmed(full_width_to_ascii(text)).replace(" ", "").upper()
    upgraded = len(number) == 15
    form = _FORM_15 if upgraded else _FORM_18
    if len(number) not in (15, 18):
        return ResidentId(number, "length")
    if not form.fullmatch(number):
        return ResidentId(number, "characters")
    if upgraded:
        number = upgrade_15_to_18(number)
    if number[:2] not in _PROVINCES and number[0] != _FOREIGN_RESIDENT:
        return ResidentId(number, "region", upgraded=upgraded)
    born = _birth_date(number)
    if born is None or born < EARLIEST_BIRTH or (latest_birth is not None and born > latest_birth):
        return ResidentId(number, "birth-date", upgraded=upgraded)
    if number[17] != check_character(number[:17]):
        return ResidentId(number, "check-digit", upgraded=upgraded)
    # GB 11643 4.3: the sequence number is odd for men and even for women.
    gender = "male" if int(number[16]) % 2 else "female"
    return ResidentId(number, "", born.isoformat(), gender, upgraded)


def upgrade_15_to_18(number: str) -> str:
    """The 18-character form of a 15-digit number (GB 11643-1989): century 19 put in, check character added.

    ``number`` must be 15 ASCII digits; anything else raises ValueError.
    """
    if not _FORM_15.fullmatch(number):
        raise ValueError("not 15 digits")
    body = number[:6] + "19" + number[6:]
    return body + check_character(body)


def check_character(body: str) -> str:
    """The check character of 17 digits (ISO 7064:1983 MOD 11-2)."""
    return _CHECK_CHARACTERS[sum(weight * int(digit) for weight, digit in zip(_WEIGHTS, body, strict=True)) % 11]


def _birth_date(number: str) -> date | None:
    try:
        return date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return None
