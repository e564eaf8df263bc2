"""Profiles that map a HIS's own tables: what is refused, what a row becomes, and the SQL of five databases."""

# ruff: noqa: E501 - a case is one line

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.dialects import mssql, mysql, oracle, postgresql, sqlite

from bridge.services.poll_places import Place
from bridge.services.view_queries import MappedQuery
from bridge.settings import CONFIG_DIRECTORY
from fhir_adapters.errors import ProfileError
from fhir_adapters.profile import SourceProfile
from fhir_adapters.tabular.mapped import find_mapping, mapped_row

HEAD = 'name = "his"\n[[views]]\nview = "V_IOP_PATIENT"\nfrom = "病人信息"\nas = "p"\nkey = ["p.病人ID"]\n'
COLUMNS = '[views.columns]\npatient_no = "p.病人ID"\n'


def profile(text: str) -> SourceProfile:
    return SourceProfile.from_toml(text)


def row(expression: str, **cells: Any) -> Any:
    """What an expression for ``name`` makes of cells of the table ``p``."""
    mapping = profile(HEAD + COLUMNS + f"name = {expression}\n").views[0]
    return mapped_row(mapping, {f"p.{name}": value for name, value in {"病人ID": 1, **cells}.items()})["name"]


@pytest.mark.parametrize("file", sorted((CONFIG_DIRECTORY / "profiles").glob("*.toml")), ids=lambda file: file.stem)
def test_the_shipped_profiles_are_good(file: Path) -> None:
    made = SourceProfile.from_toml(file.read_bytes())
    assert file.stem == made.name
    assert made.views or file.stem == "default"


@pytest.mark.parametrize(
    ("expression", "cells", "expected"),
    [
        pytest.param('"p.姓名"', {"姓名": "张三  "}, "张三  ", id="a column as it stands"),
        pytest.param('{ value = "I" }', {}, "I", id="a constant"),
        pytest.param('{ join = ["p.a", "p.b"], with = "_" }', {"a": "P1  ", "b": 2}, "P1_2", id="composite, blanks off"),
        pytest.param('{ join = ["p.a", "p.b"] }', {"a": "P1", "b": None}, None, id="composite of which a part is missing"),
        pytest.param('{ join = ["p.a", "p.b"] }', {"a": Decimal("7"), "b": 2.0}, "72", id="numbers of drivers"),
        pytest.param('{ join = ["p.a", "p.b"], with = "-", form = "%Y%m%d" }', {"a": date(2026, 1, 2), "b": 7},
                     "20260102-7", id="a date in a composite"),
        pytest.param('{ join = ["p.a", "p.b"], with = "-", form = "%Y%m%d" }', {"a": "2026-01-02T00:00:00", "b": 7},
                     "20260102-7", id="the same after the inbox"),
        pytest.param('{ first = ["p.a", "p.b"] }', {"a": " ", "b": "x"}, "x", id="the first that is not empty"),
        pytest.param('{ first = ["p.a", "p.b"] }', {"a": None, "b": None}, None, id="all empty"),
        pytest.param('{ column = "p.a", charset = "GBK" }', {"a": "张三".encode("gbk")}, "张三", id="bytes in GBK"),
        pytest.param('{ column = "p.a", charset = "GBK" }', {"a": "张三"}, "张三", id="text needs no decoding"),
        pytest.param('{ column = "p.a", charset = "GBK" }', {"a": b"\xff\xff"}, b"\xff\xff", id="bytes of no GBK stay"),
        pytest.param('{ column = "p.a", charset = "GBK", stored_as = "latin-1" }',
                     {"a": "张三".encode("gbk").decode("latin-1")}, "张三", id="GBK in a column that claims Latin 1"),
        pytest.param('{ column = "p.a", charset = "GBK", stored_as = "latin-1" }', {"a": "张三"}, "张三",
                     id="a column that does not"),
        pytest.param('{ column = "p.a", codes = { "1" = "男" } }', {"a": "１ "}, "男", id="code, full width"),
        pytest.param('{ column = "p.a", codes = { "1" = "男" } }', {"a": 1}, "男", id="code as a number"),
        pytest.param('{ column = "p.a", codes = { "1" = "男" } }', {"a": True}, "男", id="code as a bit"),
        pytest.param('{ column = "p.a", codes = { "1" = "男" } }', {"a": "3"}, "3", id="code without a map"),
        pytest.param('{ column = "p.a", codes = { "3" = "" } }', {"a": "3"}, "", id="code that means nothing"),
    ],
)  # fmt: skip
def test_what_a_column_is_made_of(expression: str, cells: dict[str, Any], expected: Any) -> None:
    assert row(expression, **cells) == expected


def test_the_key_and_the_watermark_make_the_lineage_columns() -> None:
    text = HEAD.replace('["p.病人ID"]', '["p.病人ID", "p.次"]') + 'watermark = { latest = ["p.a", "p.b"] }\n' + COLUMNS
    made = mapped_row(profile(text).views[0], {"p.病人ID": 1, "p.次": 2, "p.a": None, "p.b": datetime(2026, 1, 1)})  # noqa: DTZ001
    assert (made["row_key"], made["updated_at"]) == ("1_2", datetime(2026, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("text", "place"),
    [
        pytest.param('name = "x"\nviews = 1\n', "views", id="not a list"),
        pytest.param(HEAD.replace("V_IOP_PATIENT", "V_OTHER") + COLUMNS, "views[0].view", id="no such view"),
        pytest.param(HEAD + "shoes = 1\n" + COLUMNS, "views[0].shoes", id="unknown key"),
        pytest.param(HEAD + '[views.columns]\nname = "p.姓名"\n', "patient_no", id="a required column is missing"),
        pytest.param(HEAD + COLUMNS + 'shoe_size = "p.x"\n', "shoe_size", id="a column that the view has not"),
        pytest.param(HEAD + COLUMNS + 'name = "姓名"\n', "columns.name", id="a column without its table"),
        pytest.param(HEAD + COLUMNS + 'name = "q.姓名"\n', "views[0]", id="a table that is not there"),
        pytest.param(HEAD + COLUMNS + 'name = { column = "p.a", value = "b" }\n', "columns.name", id="two kinds"),
        pytest.param(HEAD + COLUMNS + "name = { join = [] }\n", "columns.name", id="a composite of nothing"),
        pytest.param(HEAD + COLUMNS + 'name = { column = "p.a", charset = "nope" }\n', "charset", id="charset"),
        pytest.param(HEAD + COLUMNS + 'name = { column = "p.a", charset = "hex" }\n', "charset", id="codec of bytes"),
        pytest.param(HEAD + COLUMNS + 'name = { column = "p.a", codes = { a = 1 } }\n', "codes", id="codes"),
        pytest.param(HEAD + COLUMNS + 'name = { join = ["p.a"], form = "%x" }\n', "form", id="form"),
        pytest.param(HEAD.replace('key = ["p.病人ID"]\n', "") + COLUMNS, "views[0].key", id="no key"),
        pytest.param(HEAD.replace('as = "p"', 'as = "p p"') + COLUMNS, "views[0].as", id="alias"),
        pytest.param(HEAD + 'watermark = { newest = ["p.a"] }\n' + COLUMNS, "watermark", id="watermark"),
        pytest.param(HEAD + 'overlap = "1 day"\n' + COLUMNS, "overlap", id="overlap"),
        pytest.param(HEAD + 'where = [{ column = "p.a" }]\n' + COLUMNS, "where[0]", id="a condition without a value"),
        pytest.param(HEAD + 'where = [{ column = "p.a", in = [] }]\n' + COLUMNS, "where[0]", id="in nothing"),
        pytest.param(HEAD + 'where = [{ column = "p.a", like = "x" }]\n' + COLUMNS, "where[0]", id="an operator"),
        pytest.param(HEAD + 'join = [{ table = "t", as = "p", on = { "p.a" = "p.b" } }]\n' + COLUMNS, "as", id="alias twice"),
        pytest.param(HEAD + 'join = [{ table = "t", as = "t", on = {} }]\n' + COLUMNS, "on", id="a join without on"),
        pytest.param(HEAD + COLUMNS + HEAD.partition("\n")[2] + COLUMNS, "views.V_IOP_PATIENT", id="a name twice"),
        pytest.param(HEAD.replace("病人信息", "x" * 200) + COLUMNS, "views[0].from", id="a name too long"),
    ],
)  # fmt: skip
def test_a_mapping_that_cannot_be_is_refused_by_name(text: str, place: str) -> None:
    with pytest.raises(ProfileError) as refusal:
        profile(text)
    assert place in refusal.value.location


def test_a_query_that_the_profile_no_longer_has_is_named() -> None:
    with pytest.raises(ProfileError, match="patients"):
        find_mapping(SourceProfile(), "patients")


COMPILED = {
    "oracle": (oracle.dialect(), '"', "FETCH FIRST"),
    "mssql": (mssql.dialect(), "[", "TOP"),
    "mysql": (mysql.dialect(), "`", "LIMIT"),
    "postgresql": (postgresql.dialect(), '"', "LIMIT"),
    "sqlite": (sqlite.dialect(), '"', "LIMIT"),
}


@pytest.mark.parametrize("database", list(COMPILED))
@pytest.mark.parametrize("dialect", ["junwei", "winning", "bsoft", "neusoft", "zlhis"])
def test_every_query_of_every_family_compiles_for_every_database(database: str, dialect: str) -> None:
    compiler, quote, bounded = COMPILED[database]
    made = SourceProfile.from_toml((CONFIG_DIRECTORY / "profiles" / f"his-{dialect}.toml").read_bytes())
    for mapping in made.views:
        query = MappedQuery(mapping)
        key = tuple(1 for _ in mapping.key)
        for place, tie in ((None, False), (Place("2026010108:00:00"), False), (Place("2026", key), False),
                           (Place("2026", key), True)):  # fmt: skip
            if tie and not query.has_watermark:
                continue
            text = str(query.select(place, 10, tie=tie).compile(dialect=compiler))
            assert bounded in text
            assert f"{quote}{mapping.table}" in text
            assert "2026" not in text  # values are bound


def test_oracle_and_sql_server_statements_are_as_a_dba_expects() -> None:
    text = (
        HEAD.replace('as = "p"', 'as = "p"\nschema = "ZLHIS"')
        + 'watermark = "p.登记时间"\nwhere = [{ column = "p.状态", not = "9" }]\n'
        + 'join = [{ table = "部门表", as = "d", on = { "d.ID" = "p.科室ID" }, where = [{ column = "d.撤档", null = true }] }]\n'
        + COLUMNS
        + 'name = "d.名称"\n'
    )
    statement = MappedQuery(profile(text).views[0]).select(Place(datetime(2026, 1, 1), (7,)), 500)  # noqa: DTZ001

    def flat(dialect: Any) -> str:
        return " ".join(str(statement.compile(dialect=dialect)).split())

    assert flat(oracle.dialect()) == (
        'SELECT "p"."病人ID" AS c0, "p"."登记时间" AS c1, "d"."名称" AS c2 FROM "ZLHIS"."病人信息" "p" '
        'LEFT OUTER JOIN "部门表" "d" ON "d"."ID" = "p"."科室ID" AND "d"."撤档" IS NULL '
        'WHERE ("p"."状态" IS NULL OR "p"."状态" != :param_1) AND "p"."登记时间" >= :param_2 AND '
        '("p"."登记时间" > :param_2 OR "p"."登记时间" = :param_2 AND "p"."病人ID" > :param_3) '
        'ORDER BY "p"."登记时间", "p"."病人ID" FETCH FIRST __[POSTCOMPILE_param_4] ROWS ONLY'
    )
    assert flat(mssql.dialect()).startswith(
        "SELECT TOP __[POSTCOMPILE_param_1] [p].[病人ID] AS c0, [p].[登记时间] AS c1, [d].[名称] AS c2 "
        "FROM [ZLHIS].[病人信息] AS [p]"
    )


def test_a_name_cannot_break_out_of_its_quotes() -> None:
    text = HEAD.replace("病人信息", 'x\\"; DROP TABLE y; --') + COLUMNS
    statement = MappedQuery(profile(text).views[0]).select(None, 1)
    assert '"x""; DROP TABLE y; --"' in str(statement.compile(dialect=oracle.dialect()))
    assert '`x"; DROP TABLE y; --`' in str(statement.compile(dialect=mysql.dialect()))
    assert '[x"; DROP TABLE y; --]' in str(statement.compile(dialect=mssql.dialect()))
