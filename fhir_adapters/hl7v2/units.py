"""Units of measure: is what a laboratory sent UCUM, or does it mean a UCUM unit?

``unit`` in a Quantity always stays as sent. ``code`` and ``system`` are added only when the text is a UCUM term by its
grammar (The Unified Code for Units of Measure 2.1, section 2) over the atoms used in health care, or one of the ways
Chinese laboratories write one (``μmol/L``, ``×10^9/L``, ``次/分``). Nothing is converted.
"""

import re
from functools import lru_cache

UCUM = "http://unitsofmeasure.org"

MAX_UNIT_CHARS = 60
"""Longest text that is looked at as a unit; longer ones are prose."""

# Metric atoms take a prefix, the others do not (UCUM tables 1 to 3, 5 to 15; the ones health care uses).
_METRIC = frozenset(
    (
        "m s g rad K C cd mol sr Hz N Pa J W A V F Ohm S Wb Cel T H lm lx Bq Gy Sv l L ar t u eV bar pc "
        "cal cal_th cal_IT kat U [IU] [iU] Bi st P Ky Mx G Oe Gb St sb Lmb ph Ci RAD REM R B Np B[SPL] B[V] bit By Bd "
        "osm eq mho g% [cal_th] m[H2O] m[Hg] [pH]"
    ).split()
)
_PLAIN = frozenset(
    (
        "10* 10^ % [pi] [ppth] [ppm] [ppb] [pptr] min h d a a_t a_j a_g wk mo mo_s mo_j mo_g gon deg ' '' "
        "[arb'U] [USP'U] [GPL'U] [MPL'U] [APL'U] [beth'U] [anti'Xa'U] [todd'U] [dye'U] [bdsk'U] [ka'U] [knk'U] [mclg'U] "
        "[tb'U] [CCID_50] [TCID_50] [EID_50] [PFU] [FFU] [CFU] [IR] [BAU] [AU] [Amb'a'1'U] [PNU] [Lf] [D'ag'U] [FEU] [ELU] [EU] "
        "[HPF] [LPF] [NTU] [FNU] [drp] [Ch] [gr] [oz_av] [lb_av] [st_av] [in_i] [ft_i] [yd_i] [mi_i] [in_i'Hg] [in_i'H2O] "
        "[gal_us] [qt_us] [pt_us] [foz_us] [cup_us] [tbs_us] [tsp_us] [oz_m] [tsp_m] [tbs_m] [degF] [degR] [diop] [p'diop] "
        "[MET] [APGAR'U] [ACNT'U] [S] [car_m] [mesh_i] bit_s att atm [psi] [kn_i] [car_Au] [Btu] [HP] [PRU] [wood'U] "
        "[hnsf'U]"
    ).split()
)
_PREFIXES = ("da", "Ki", "Mi", "Gi", "Ti", *"YZEPTGMkhdcmunpfazy")

# Ways of writing that are not UCUM and mean exactly one UCUM term. Looked up after the characters below are replaced.
_WRITTEN = {
    "℃": "Cel",
    "°C": "Cel",
    "IU/L": "[IU]/L",
    "IU/l": "[IU]/l",
    "IU/mL": "[IU]/mL",
    "IU/ml": "[IU]/ml",
    "mIU/L": "m[IU]/L",
    "mIU/l": "m[IU]/l",
    "mIU/mL": "m[IU]/mL",
    "mIU/ml": "m[IU]/ml",
    "uIU/mL": "u[IU]/mL",
    "uIU/ml": "u[IU]/ml",
    "kIU/L": "k[IU]/L",
    "KIU/L": "k[IU]/L",
    "10^3/L": "10*3/L",
    "10^6/L": "10*6/L",
    "10^9/L": "10*9/L",
    "10^12/L": "10*12/L",
    "10^3/uL": "10*3/uL",
    "10^6/uL": "10*6/uL",
    "10E9/L": "10*9/L",
    "10E12/L": "10*12/L",
    "10e9/L": "10*9/L",
    "10e12/L": "10*12/L",
    "G/L": "10*9/L",
    "T/L": "10*12/L",
    "mmHg": "mm[Hg]",
    "mmhg": "mm[Hg]",
    "cmH2O": "cm[H2O]",
    "次/分": "/min",
    "次/min": "/min",
    "bpm": "/min",
    "秒": "s",
    "分": "min",
    "分钟": "min",
    "小时": "h",
    "天": "d",
    "岁": "a",
    "sec": "s",
    "mOsm/kg": "mosm/kg",
    "mOsm/L": "mosm/L",
    "mEq/L": "meq/L",
    "/HP": "/[HPF]",
    "/HPF": "/[HPF]",
    "/LP": "/[LPF]",
    "/LPF": "/[LPF]",
    "个/HP": "/[HPF]",
    "个/uL": "/uL",
    "个/ul": "/ul",
    "kg/m2": "kg/m2",
    "kg/m^2": "kg/m2",
    "kg/㎡": "kg/m2",
    "mm/H": "mm/h",
    "mm/1h": "mm/h",
    "Kg": "kg",
    "KG": "kg",
    "CM": "cm",
    "ML": "mL",
}
_CHARACTERS = str.maketrans({"μ": "u", "µ": "u", "×": "", "＊": "*", "／": "/", "％": "%", "²": "2", "³": "3", " ": ""})
_ANNOTATED = re.compile(r"(.*?)(\{[^{}]*\})?")
_POWERED = re.compile(r"(.*?)[+-]?\d{1,3}")
_POWER = re.compile(r"^[*xX]?10[*^]?(3|6|9|12)/")


@lru_cache(maxsize=2048)
def ucum_code(text: str) -> str | None:
    """The UCUM code that ``text`` is or plainly means; None when there is none."""
    if not text or len(text) > MAX_UNIT_CHARS:
        return None
    if is_ucum(text):
        return text
    plain = text.translate(_CHARACTERS)
    known = _WRITTEN.get(plain) or _WRITTEN.get(text)
    if known is not None:
        return known
    power = _POWER.match(plain)
    if power is not None:  # *10^9/L, x10^9/L, 109/L
        plain = f"10*{power[1]}/" + plain[power.end() :]
    return plain if plain != text and is_ucum(plain) else None


def is_ucum(text: str) -> bool:
    """Whether ``text`` is a UCUM term over the atoms known here (case sensitive)."""
    if not text.isascii() or any(character.isspace() for character in text):
        return False
    body = text[1:] if text.startswith("/") else text
    pieces = _pieces(body)
    return bool(pieces) and all(_is_component(piece) for piece in pieces)


def _pieces(body: str) -> list[str]:
    """Split at ``.`` and ``/`` outside brackets and braces; parentheses are opened. [] when they do not pair."""
    pieces, start, depth, closing = [], 0, 0, ""
    for position, character in enumerate(body):
        if closing:
            closing = "" if character == closing else closing
        elif character in "[{":
            closing = "]" if character == "[" else "}"
        elif character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
            if depth < 0:
                return []
        elif character in "./":
            pieces.append(body[start:position])
            start = position + 1
    pieces.append(body[start:])
    return [] if closing or depth else [piece.replace("(", "").replace(")", "") for piece in pieces]


def _is_component(piece: str) -> bool:
    match = _ANNOTATED.fullmatch(piece)
    assert match is not None
    unit, note = match.groups()
    if not unit:
        return note is not None
    if unit.isdigit():
        return True
    if _is_atom(unit):
        return True
    powered = _POWERED.fullmatch(unit)
    return powered is not None and _is_atom(powered[1])


def _is_atom(unit: str) -> bool:
    if unit in _METRIC or unit in _PLAIN:
        return True
    return any(unit.startswith(prefix) and unit[len(prefix) :] in _METRIC for prefix in _PREFIXES)
