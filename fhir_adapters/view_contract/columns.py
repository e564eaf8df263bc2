"""What a standard view is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Kinds: "text" (as it stands), "code" (number or code: full-width brought to ASCII), "time", and "content" (bytes or
    text of a document).
    """

    name: str
    kind: str
    meaning: str
    required: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """One view. ``record`` are the columns that together name the record; rows of one record belong together.

    Rows without their required columns are refused.
    """

    name: str
    meaning: str
    record: tuple[str, ...]
    columns: Mapping[str, Column]

    @property
    def of_patients(self) -> bool:
        """Whether its rows are about patients; those about beds, staff and departments are not."""
        return "patient_no" in self.columns

    @property
    def required(self) -> frozenset[str]:
        """The columns that no row may lack."""
        return frozenset(name for name, column in self.columns.items() if column.required)


_COMMON = """
row_key*           | code | Unique within the view and never reused 行唯一键
updated_at*        | time | Last change of anything in the row (in V_IOP_LAB: of anything in the report) 最后更新时间
"""


def view(name: str, meaning: str, record: tuple[str, ...], table: str) -> View:
    """The view of a table of ``name | kind | meaning`` lines, * after the name of a required column."""
    columns: dict[str, Column] = {}
    for line in filter(str.strip, (_COMMON + table).splitlines()):
        column, kind, text = (part.strip() for part in line.split("|"))
        required = column.endswith("*")
        column = column.rstrip("*")
        columns[column] = Column(column, kind, text, required)
    return View(name, meaning, record, MappingProxyType(columns))
