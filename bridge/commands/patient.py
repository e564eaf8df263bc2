"""`yiqiao patient`: what patients are entitled to: accesses, a copy, corrections; and checking the files of these."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bridge.commands.node import home_option, json_option

if TYPE_CHECKING:
    from bridge.services.audit_event import Party

patient_option = click.option(
    "--patient", "named", required=True, metavar="SYSTEM|VALUE|Patient/id", help="Whose record."
)
out_option = click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the signed file here.")


@click.group("patient")
def patient() -> None:
    """Show patients who asked for their records, give them copies, take requests for correction.

    \b
    Example:
      yiqiao patient accesses --home ~/node --patient Patient/0b5f4c1e --page accesses.html --out accesses.json
      yiqiao patient check accesses.json --trust trust.json
    """


@patient.command("accesses")
@home_option
@patient_option
@out_option
@click.option("--page", type=click.Path(dir_okay=False, path_type=Path), help="Write a page to print (HTML) here.")
@json_option
def accesses(home: Path, named: str, out: Path | None, page: Path | None, as_json: bool) -> None:
    """List who asked for a patient's record, who saw it, when and under which authorisation, newest first.

    \b
    Example:
      yiqiao patient accesses --home ~/node --patient Patient/0b5f4c1e --page accesses.html
    """
    from bridge.wiring import open_node

    with open_node(home) as node:
        id = _id(node, named)
        if out is not None:  # first: what is shown next is an access of its own, which no other member has signed yet
            out.write_bytes(node.patient_view.file("accesses", id, _operator()))
        found = node.patient_view.report(id, _operator())
        if page is not None:
            page.write_text(node.patient_view.page(id, _operator()), "utf-8")
    if as_json:
        click.echo(json.dumps([each.value() for each in found], ensure_ascii=False))
        return
    for each in found:
        outcome = "permitted / 准许" if each.permitted else "refused / 拒绝"
        purposes, authorisation = ",".join(each.purposes) or "-", each.authorisation or "-"
        click.echo(f"{each.when}  {each.what:<7} {each.who}  {purposes}  {authorisation}  {outcome}")
    click.echo(f"{len(found)} entries / 条记录", err=True)


@patient.command("export")
@home_option
@patient_option
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file to write.")
def export(home: Path, named: str, out: Path) -> None:
    """Write a copy of all records of a patient, with their receipts, as one signed file.

    \b
    Example:
      yiqiao patient export --home ~/node --patient Patient/0b5f4c1e --out record.json
    """
    from bridge.wiring import open_node

    with open_node(home) as node:
        out.write_bytes(node.patient_view.file("records", _id(node, named), _operator()))
    click.echo(f"{out}: written; check it with yiqiao patient check / 已导出")


@patient.command("correct")
@home_option
@patient_option
@click.option("--about", required=True, metavar="Type/id", help="The record that is wrong.")
@click.option("--text", required=True, help="What is wrong, in the patient's words.")
def correct(home: Path, named: str, about: str, text: str) -> None:
    """Keep a patient's request for correction as a Task.

    \b
    Example:
      yiqiao patient correct --home ~/node --patient Patient/0b5f4c1e --about Condition/7 --text '诊断日期有误'
    """
    from bridge.wiring import open_node

    with open_node(home) as node:
        task = node.patient_view.request_correction(_id(node, named), about, text, _operator())
    click.echo(f"Task/{task.id}")


@patient.command("answer")
@click.argument("task")
@home_option
@click.option("--outcome", type=click.Choice(["completed", "rejected"]), required=True)
@click.option("--note", required=True, help="The answer; the patient reads it.")
def answer(task: str, home: Path, outcome: str, note: str) -> None:
    """Answer a request for correction, once.

    \b
    Example:
      yiqiao patient answer correction-5d0c… --home ~/node --outcome completed --note '已在病历系统更正'
    """
    from bridge.wiring import open_node

    with open_node(home) as node:
        done = node.patient_view.answer_correction(task.removeprefix("Task/"), outcome, note, _operator())  # type: ignore[arg-type]
    click.echo(f"Task/{done.id}: {outcome} / 已答复")


@patient.command("check")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--trust", required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="The consortium's trust file.")  # fmt: skip
@click.option("--minimum", type=click.Choice(["pending", "committed", "witnessed"]), default="witnessed",
              show_default=True, help="How far the receipts must have come.")  # fmt: skip
@json_option
def check(file: Path, trust: Path, minimum: str, as_json: bool) -> None:
    """Check a patient's FILE offline: the institution's signature, and every record against its receipt.

    \b
    Example:
      yiqiao patient check accesses.json --trust trust.json
    """
    from dataclasses import asdict

    from bridge.services import patient_file

    found = patient_file.check(file.read_bytes(), trust.read_bytes(), minimum=minimum)  # type: ignore[arg-type]
    if as_json:
        click.echo(json.dumps(asdict(found), ensure_ascii=False))
        return
    click.echo(f"verified: {found.records} {found.kind} of {found.institution} {found.org} / 验证通过")
    for ref in found.missing:
        click.echo(f"without a receipt / 无回执: {ref}")


def _operator() -> Party:
    from bridge.services.audit_event import Party

    return Party("operator", getpass.getuser())


def _id(node: object, named: str) -> str:
    """Return the local id of "Patient/id" or "SYSTEM|VALUE"; an erased patient keeps its trail under Patient/id."""
    if named.startswith("Patient/"):
        return named.removeprefix("Patient/")
    system, separator, value = named.partition("|")
    if not separator:
        raise click.UsageError("name the patient as Patient/id or SYSTEM|VALUE / 患者写法不对")
    return str(node.consent.find_patient(system.strip(), value.strip()))  # type: ignore[attr-defined]
