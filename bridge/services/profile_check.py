"""Holds a source profile against samples of its source: files of any format, and tables of a HIS it maps.

Samples of a HIS's own tables are one CSV file or sheet for each table, named as the table, or an SQLite database; they
are read by the statements that read the HIS (``bridge.services.view_queries``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, inspect, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool
from sqlalchemy.sql.elements import quoted_name

from bridge.services.view_queries import MappedQuery
from fhir_adapters import SourceProfile, detect_format, messages, tabular
from fhir_adapters.coverage import Coverage, CoverageReport
from fhir_adapters.coverage.samples import rows_sample
from fhir_adapters.errors import AdapterError, ParseError, ProfileError
from fhir_adapters.tabular.csv_file import read_header
from fhir_adapters.view_mapping import ViewMapping

MAX_SAMPLE_BYTES = 256 * 1024 * 1024
"""Largest file taken as a sample, in bytes: samples are read whole."""

MAX_SAMPLE_ROWS = 10_000
"""Most rows of a query that are looked at: a profile's faults show in the first thousands."""

SUFFIXES = frozenset(
    {".hl7", ".txt", ".msg", ".dat", ".er7", ".adt", ".oru", ".csv", ".tsv", ".xlsx", ".xml", ".json", ".ndjson"}
)
DATABASE_SUFFIXES = frozenset({".sqlite3", ".sqlite", ".db"})

_SQLITE = b"SQLite format 3\0"
_TABULAR = frozenset({"csv", "xlsx"})


@dataclass
class ProfileCheck:
    """A check in progress. ``samples`` are the files looked at, in the order of their numbers (from 1)."""

    profile: SourceProfile
    coverage: Coverage = field(default_factory=Coverage)
    samples: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)

    def run(self, files: Sequence[Path]) -> CoverageReport:
        """Look at every file. Raises ``OSError`` for one that cannot be read, and nothing of their content."""
        tables = [each.table for each in self.profile.views]
        tables += [join.table for each in self.profile.views for join in each.joins]
        mapped = {each.casefold(): each for each in tables}
        engine = create_engine("sqlite://", poolclass=StaticPool)
        filled = 0
        try:
            for file in files:
                self.samples.append(file.name)
                filled += self._file(engine, file, mapped)
            if filled:
                self._views(engine, filled)
        finally:
            engine.dispose()
        return self.coverage.report()

    def _file(self, engine: Engine, file: Path, mapped: Mapping[str, str]) -> int:
        """Look at one file; return its number when it holds tables that the profile maps, else 0."""
        number = len(self.samples)
        try:
            raw = _read(file)
            if raw.startswith(_SQLITE):
                own = create_engine(f"sqlite:///file:{file.resolve()}?mode=ro&uri=true")
                try:
                    self._views(own, number)
                finally:
                    own.dispose()
                return 0
            chosen = detect_format(raw)
            if mapped and chosen in _TABULAR and _fill(engine, file, raw, chosen, self.profile, mapped):
                return number
            self.kinds[chosen] += 1
            for piece in messages(raw, chosen):
                self.coverage.convert(piece, chosen, self.profile, number)
        except AdapterError as error:
            self.coverage.messages += 1
            self.coverage.refuse(error, number)
        return 0

    def _views(self, engine: Engine, number: int) -> None:
        """Read the profile's queries from a database and convert what they give."""
        known = inspect(engine)
        there = {name: [str(each["name"]) for each in known.get_columns(name)] for name in known.get_table_names()}
        with engine.connect() as connection:
            for mapping in self.profile.views:
                self.kinds["view"] += 1
                self._query(connection, mapping, there, number)
            self._columns(connection, there)

    def _query(
        self, connection: Connection, mapping: ViewMapping, there: Mapping[str, Sequence[str]], number: int
    ) -> None:
        coverage = self.coverage
        absent = _absent(mapping, there)
        if absent == mapping.table:
            return  # no sample of this query was given
        coverage.messages += 1
        if absent:
            coverage.refuse(ProfileError(f"the samples have no {absent}", f"views.{mapping.name}"), number)
            return
        query = MappedQuery(mapping)
        try:
            found = connection.execute(query.select(None, MAX_SAMPLE_ROWS))
            cells = [query.cells(tuple(row), ()) for row in found]
            rows = [dict(query.standard(each)) for each in cells]
            result = tabular.convert_rows(mapping.view, rows, self.profile)
        except SQLAlchemyError:
            coverage.refuse(ParseError("the query cannot be read from the samples", f"views.{mapping.name}"), number)
        except AdapterError as error:
            coverage.refuse(error, number)
        else:
            coverage.add(result, rows_sample(mapping.view, rows), number)

    def _columns(self, connection: Connection, there: Mapping[str, Sequence[str]]) -> None:
        """Count the columns of the HIS's tables that hold something, and those that no query names."""
        used = {(_table_of(each, alias), name) for each in self.profile.views for alias, name in _named(each)}
        tables = {name for name, _ in used}
        seen: Counter[str] = Counter()
        for table in tables & there.keys():
            for column in there[table]:
                name, quoted = f"{table}.{column}", quoted_name(column, quote=True)
                quote = connection.dialect.identifier_preparer.quote
                held = f"SELECT COUNT(*) FROM {quote(quoted_name(table, quote=True))} WHERE {quote(quoted)} IS NOT NULL"  # noqa: S608 - quoted names of the samples' own tables
                seen[name] = int(connection.execute(text(held.replace(":", "\\:"))).scalar_one())
        seen += Counter()
        self.coverage.saw(seen)
        self.coverage.unused(each for each in seen if tuple(each.split(".", 1)) not in used)


def sample_files(places: Sequence[Path]) -> list[Path]:
    """Return the sample files of folders and files, each once; a file named outright may have any name."""
    found: dict[Path, None] = {}
    for place in places:
        if place.is_dir():
            wanted = SUFFIXES | DATABASE_SUFFIXES
            listed = sorted(each for each in place.rglob("*") if each.is_file() and each.suffix.lower() in wanted)
            found.update(dict.fromkeys(listed))
        else:
            found[place] = None
    return list(found)


def _read(file: Path) -> bytes:
    if file.stat().st_size > MAX_SAMPLE_BYTES:
        raise ParseError(f"a sample over {MAX_SAMPLE_BYTES} bytes; cut a smaller one / 样本过大")
    return file.read_bytes()


def _fill(
    engine: Engine, file: Path, raw: bytes, format: str, profile: SourceProfile, mapped: Mapping[str, str]
) -> bool:
    """Put the tables of a file that the profile maps into a database; return whether there were any."""
    filled = False
    for title, header, lines in _tables(file, raw, format, profile):
        table = mapped.get(title.strip().casefold())
        if table is None:
            continue
        names = [str(each or "").strip() for each in header]
        rows = [[_cell(each) for each in fields[: len(names)]] for _, fields in lines]
        _create(engine, table, names, [row + [None] * (len(names) - len(row)) for row in rows])
        filled = True
    return filled


def _tables(
    file: Path, raw: bytes, format: str, profile: SourceProfile
) -> Iterator[tuple[str, Sequence[Any], Iterator[tuple[int, Sequence[Any]]]]]:
    if format == "csv":
        header, lines = read_header(raw, profile.charset)
        yield file.stem, header, iter(lines)
        return
    from fhir_adapters.tabular.workbook import check, sheets

    check(raw)
    for title, rows in sheets(raw):
        first = next(((number, row) for number, row in rows if any(row)), None)
        if first is not None:
            yield title, first[1], iter(rows)


def _create(engine: Engine, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Make a table of text and whole numbers, as a HIS's would be: "0101" stays text, 12 compares with 12."""
    quote = engine.dialect.identifier_preparer.quote
    kept = [position for position, each in enumerate(columns) if each]
    kinds = ["INTEGER" if _whole(row[at] for row in rows) else "TEXT" for at in kept]
    listed = [f"{quote(quoted_name(columns[at], quote=True))} {kind}" for at, kind in zip(kept, kinds, strict=True)]
    table = quote(quoted_name(name, quote=True))
    with _refusing(name), engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE {table} ({', '.join(listed)})".replace(":", "\\:")))
        if rows:
            marks = ", ".join(f":c{position}" for position in range(len(kept)))
            insert = f"INSERT INTO {table.replace(':', chr(92) + ':')} VALUES ({marks})"  # noqa: S608 - a quoted name
            connection.execute(text(insert), [{f"c{n}": row[at] for n, at in enumerate(kept)} for row in rows])


@contextmanager
def _refusing(table: str) -> Iterator[None]:
    """Say as a fault of the samples what the database would not take: two files of one table, a column twice."""
    try:
        yield
    except SQLAlchemyError:
        raise ParseError("two samples of one table, or a column twice / 表或列重复", table) from None


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, int | float):
        return value
    plain = value.isoformat(" ") if hasattr(value, "isoformat") else str(value)
    return plain if plain.strip() else None


def _whole(values: Iterator[Any]) -> bool:
    """Whether every value is a whole number written as such."""
    found = [str(value) for value in values if value is not None]
    return bool(found) and all(len(each) < 18 and each.isascii() and str(each).lstrip("-").isdigit() and
                               str(int(each)) == each for each in found)  # fmt: skip


def _absent(mapping: ViewMapping, there: Mapping[str, Sequence[str]]) -> str:
    """The first table or column that a query needs and the samples lack, "" when they have all."""
    tables = {mapping.alias: mapping.table, **{join.alias: join.table for join in mapping.joins}}
    for table in tables.values():
        if table not in there:
            return table
    for alias, column in _named(mapping):
        if column not in there[tables[alias]]:
            return f"{tables[alias]}.{column}"
    return ""


def _named(mapping: ViewMapping) -> Iterator[tuple[str, str]]:
    """Alias and name of every column that a query names."""
    for each in mapping.source_columns:
        yield each.alias, each.name
    for condition in mapping.where:
        yield condition.column.alias, condition.column.name
    for join in mapping.joins:
        for left, right in join.on:
            yield left.alias, left.name
            yield right.alias, right.name
        for condition in join.where:
            yield condition.column.alias, condition.column.name


def _table_of(mapping: ViewMapping, alias: str) -> str:
    return next((join.table for join in mapping.joins if join.alias == alias), mapping.table)
