"""The ``yiqiao`` command: finds the module of a command, runs it, and turns every error into one sentence.

Modules are loaded only when one of their commands runs, so ``yiqiao --help`` and the offline verifier start fast.
Exit codes: 0 done, 1 failed, 2 wrong usage (click's own), 130 interrupted.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from dataclasses import dataclass

import click

VERSION_LINE = "yiqiao 0.1.0"
DEBUG_VARIABLE = "YIQIAO_DEBUG"


@dataclass(frozen=True, slots=True)
class LazyCommand:
    """Where a command lives and what it does, known without importing it."""

    module: str
    short_help: str


COMMANDS: dict[str, LazyCommand] = {
    "demo": LazyCommand("bridge.commands.demo", "Run the whole job on this machine: three nodes, one consortium."),
    "init": LazyCommand("bridge.commands.node", "Create the home of a node: keys, settings, database."),
    "serve": LazyCommand("bridge.commands.node", "Run the node: HTTP, MLLP and scheduled jobs."),
    "token": LazyCommand("bridge.commands.node", "Create, list and revoke client tokens."),
    "convert": LazyCommand("bridge.commands.convert", "Convert source files to FHIR Bundles, keeping nothing."),
    "profile": LazyCommand("bridge.commands.profile", "Check a site profile against samples; begin a new one."),
    "ingest": LazyCommand("bridge.commands.ingest", "Take source files into the node."),
    "inbox": LazyCommand("bridge.commands.inbox", "List, show and re-run received messages."),
    "anchor": LazyCommand("bridge.commands.evidence", "Log new record versions and publish a checkpoint now."),
    "receipt": LazyCommand("bridge.commands.evidence", "Write the receipt of a record."),
    "verify": LazyCommand("bridge.commands.evidence", "Check a receipt offline."),
    "shred": LazyCommand("bridge.commands.erasure", "Destroy a patient's data; the evidence stays."),
    "fsck": LazyCommand("bridge.commands.integrity", "Recompute everything stored and name what differs."),
    "status": LazyCommand("bridge.commands.integrity", "Say how the node's evidence stands, and what is alarming."),
    "lookup": LazyCommand(
        "bridge.commands.exchange", "Find, request, receive and verify a patient's records elsewhere."
    ),
    "pseudonyms": LazyCommand("bridge.commands.pseudonyms", "Replace the key of the pseudonyms, and follow it."),
    "grant": LazyCommand("bridge.commands.consent", "Record a patient's consent and grant access."),
    "amend": LazyCommand("bridge.commands.consent", "Change a grant."),
    "revoke": LazyCommand("bridge.commands.consent", "Revoke a grant."),
    "consent": LazyCommand("bridge.commands.consent", "Confirm and list patients' consents."),
    "patient": LazyCommand("bridge.commands.patient", "Show patients accesses, give copies, take corrections."),
    "collect": LazyCommand("bridge.commands.release", "Go on with own requests that wait or broke off."),
    "release": LazyCommand("bridge.commands.release", "Approve or refuse requests; report what is not settled."),
    "review": LazyCommand("bridge.commands.review", "List and judge emergency accesses."),
    "sign": LazyCommand("bridge.commands.sign", "Sign a record by the institution's key and a practitioner's."),
    "check-signature": LazyCommand("bridge.commands.sign", "Check a signed Provenance offline."),
    "practitioner": LazyCommand("bridge.commands.sign", "Certify practitioners' signing keys."),
    "member": LazyCommand("bridge.commands.governance", "Admit, suspend and list members; rotate keys."),
    "keys": LazyCommand("bridge.commands.keys", "Show, protect and replace this node's keys."),
    "pki": LazyCommand("bridge.commands.pki", "Certificates: the consortium's authority and this node's own."),
    "ledger": LazyCommand("bridge.commands.ledger", "Found, join, run and watch a ledger that the members replicate."),
    "trust": LazyCommand("bridge.commands.governance", "Write the consortium's trust file."),
    "bench": LazyCommand("bridge.commands.bench", "Measure this machine."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the command names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command's module and return the command of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name].module)
        for value in vars(module).values():
            if isinstance(value, click.Command) and value.name == cmd_name:
                return value
        raise click.ClickException(f"the command {cmd_name} is not part of this installation / 未安装该命令")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands from the table, importing none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.short_help) for name, command in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(message=VERSION_LINE, version="0.1.0")
@click.pass_context
def yiqiao(context: click.Context) -> None:
    """Yiqiao 医桥: from a hospital's HIS/EMR to FHIR, with evidence on a consortium ledger.

    \b
    Example:
      yiqiao convert adt.hl7 --out bundles.ndjson
      yiqiao init ~/node --org 12990000MB00000277 --name "第一医院" --role hospital
    """
    if context.invoked_subcommand is None:
        raise click.UsageError("name a command / 请指定命令")


def main(arguments: list[str] | None = None) -> None:
    """Run ``yiqiao``.

    Every failure is one sentence on stderr and a non-zero exit code; YIQIAO_DEBUG=1 adds the traceback.
    """
    try:
        code = yiqiao.main(args=arguments, prog_name="yiqiao", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "yiqiao"
        click.echo(f"{path}: {error.format_message()} (see: {path} --help)", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped / 已中止", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `yiqiao ... | head` is no failure to report
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - the process boundary
        if os.environ.get(DEBUG_VARIABLE):
            traceback.print_exc()
        click.echo(f"yiqiao: {explain(error)}", err=True)
        sys.exit(1)


def explain(error: Exception) -> str:
    """Return the one sentence a person reads for ``error``, with the way out; never patient data."""
    module = type(error).__module__.partition(".")[0]
    if module in ("anchor", "bridge", "fhir_adapters") or type(error).__name__ == "PeerSignatureError":
        text = str(error) or type(error).__name__
        if type(error).__name__ == "ChainUnavailable":
            text += (
                "; check ledger.url and that the hosting node is running / 无法连接账本，请检查 ledger.url 以及托管节点"
            )
        return text
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or type(error).__name__}{where} / 操作系统错误"
    if module == "sqlalchemy":
        return (
            f"the database cannot be used ({type(error).__name__}); check database.url and its server / "
            "数据库不可用，请检查 database.url"
        )
    return f"internal error ({type(error).__name__}); run again with {DEBUG_VARIABLE}=1 for the details / 内部错误"


if __name__ == "__main__":
    main()
