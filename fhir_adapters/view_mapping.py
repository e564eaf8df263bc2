"""How the tables of a HIS become rows of the standard views, as a source profile says it.

A profile has one ``[[views]]`` entry for every query::

    [[views]]
    view = "V_IOP_ENCOUNTER"
    name = "inpatient"                        # of the query, default the view's; its progress is kept under it
    from = "病案主页"                          # table, quoted as it stands; schema = "ZLHIS" before it where needed
    as = "v"                                  # default "t"
    key = ["v.病人ID", "v.主页ID"]              # columns that are unique together and never NULL
    watermark = "v.登记时间"                    # or { latest = ["v.入院日期", "v.出院日期"] }; or none
    overlap = 86400                           # how far each run goes back before what was read, in seconds
    since = 2026-01-01T00:00:00               # nothing older is read
    every = 3600                              # without a watermark: seconds between two readings of the whole table
    # left joins, where = [...] adding conditions
    join = [{ table = "部门表", as = "d", on = { "d.ID" = "v.出院科室ID" } }]
    where = [{ column = "v.病人性质", in = ["0"] }]   # equals, not, in, null = true | false

    [views.columns]                           # column of the contract = what it is made of
    patient_no = "v.病人ID"                    # a column
    visit_class = { value = "I" }             # a constant
    visit_no = { join = ["v.病人ID", "v.主页ID"], with = "_" }   # composite; empty when any part is
                                              # form = "%Y%m%d" writes parts that are times
    end_at = { first = ["v.出院日期", "v.预出院日期"] }           # the first that is not empty
    name = { column = "v.姓名", charset = "GBK" }               # bytes in that character set
    dept_name = { column = "d.名称", charset = "GBK", stored_as = "latin-1" }   # GBK in a column that claims Latin 1
    sex = { column = "v.性别", codes = { "1" = "男", "2" = "女" } }   # a code table; a code outside it stays itself

Nothing of this is ever text of an SQL statement: names are quoted and values bound by whoever builds the query.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from types import MappingProxyType
from typing import Any, Literal

Operator = Literal["equals", "not", "in", "null"]


@dataclass(frozen=True, slots=True)
class ColumnRef:
    """A column of the source: the alias of its table, and its name as the database has it."""

    alias: str
    name: str

    def __str__(self) -> str:
        return f"{self.alias}.{self.name}"


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on a column. ``values`` are bound; for "null" the one value says whether it is to be NULL."""

    column: ColumnRef
    operator: Operator
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Join:
    """A left join: equal columns, and conditions that belong to the join."""

    table: str
    schema: str
    alias: str
    on: tuple[tuple[ColumnRef, ColumnRef], ...]
    where: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Expression:
    """What a column of the contract is made of; see the module's text for the kinds."""

    kind: Literal["column", "value", "join", "first"]
    columns: tuple[ColumnRef, ...] = ()
    value: str = ""
    separator: str = ""
    charset: str = ""
    stored_as: str = ""
    form: str = ""
    codes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class ViewMapping:
    """One query of a profile. Without ``watermark`` the table is read whole every ``every`` seconds."""

    view: str
    name: str
    table: str
    schema: str
    alias: str
    key: tuple[ColumnRef, ...]
    watermark: tuple[ColumnRef, ...]
    columns: Mapping[str, Expression]
    joins: tuple[Join, ...] = ()
    where: tuple[Condition, ...] = ()
    overlap: float | None = None
    since: datetime | date | str | int | None = None
    every: float = 3600.0

    @property
    def source_columns(self) -> tuple[ColumnRef, ...]:
        """Every source column that the query must give, each once: the key, the watermark, then the rest."""
        named = dict.fromkeys((*self.key, *self.watermark))
        for expression in self.columns.values():
            named.update(dict.fromkeys(expression.columns))
        return tuple(named)
