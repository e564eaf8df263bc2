"""`yiqiao shred`: destroy what a node keeps of a patient, and leave the evidence of it checkable."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bridge.commands.evidence import home_option, json_option

if TYPE_CHECKING:
    from bridge.services.erasure import ErasureResult

REASONS = ("patient-request", "retention-ended", "court-order", "stored-in-error")


@click.command("shred")
@home_option
@click.option("--patient", required=True, metavar="SYSTEM|VALUE|Patient/id", help="Whose data.")
@click.option("--reason", type=click.Choice(REASONS), default=REASONS[0], show_default=True)
@click.option("--receipt", type=click.Path(dir_okay=False, path_type=Path),
              help="Write the receipt about the erasure here.")  # fmt: skip
@click.option("--yes", is_flag=True, help="Do not ask. There is no way back.")
@json_option
def shred_command(home: Path, patient: str, reason: str, receipt: Path | None, yes: bool, as_json: bool) -> None:
    """Destroy a patient's data key and salts: everything this node keeps of the patient becomes unreadable, for good.

    Receipts made before stay valid, the log stays checkable, and the erasure itself is recorded as an AuditEvent that
    is anchored like any record. A backup that holds both database and keys still has the data.

    \b
    Example:
      yiqiao shred --home ~/node --patient Patient/0b5f4c1e-9c1d-8f7a-b3a2-111111111111 --receipt erasure.json
    """
    from bridge.settings import load_settings
    from bridge.wiring import build_node

    with closing(build_node(load_settings(home))) as node:
        subject = node.erasure.resolve(patient)
        if not yes:
            versions = node.erasure.count(subject)
            click.confirm(
                f"{versions} record versions of {subject} become unreadable for good; go on? / 数据将永久不可读",
                abort=True,
                err=True,
            )
        result = node.erasure.erase(subject, reason)
        if receipt is not None:
            receipt.write_bytes(node.receipts.for_record("AuditEvent", result.event))
    _tell(result, receipt, as_json)


def _tell(result: ErasureResult, receipt: Path | None, as_json: bool) -> None:
    from bridge.services.erasure import as_json as values

    if as_json:
        click.echo(json.dumps({**values(result), "receipt": None if receipt is None else str(receipt)}))
        return
    click.echo(f"{result.subject}: {result.versions} record versions erased / 已销毁")
    click.echo(f"recorded as AuditEvent/{result.event}; its receipt is the receipt about the erasure / 已记录")
    for problem in result.problems:
        click.echo(f"NOTE: {problem}", err=True)
