"""`yiqiao profile`: check a site profile against samples, begin a new one, list those that are shipped."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from bridge.commands.node import json_option
from bridge.settings import CONFIG_DIRECTORY

STARTERS = CONFIG_DIRECTORY / "starters"
KINDS = ("hl7v2", "cda", "view", "folder", "soap", "fhir")


@click.group("profile")
def profile() -> None:
    """Site profiles: what an adapter must be told about one source.

    \b
    Example:
      yiqiao profile new --kind hl7v2 his.toml
      yiqiao profile check his.toml --sample samples/ --html report.html
    """


@profile.command("check")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE")
@click.option("--sample", "samples", multiple=True, required=True, type=click.Path(exists=True, path_type=Path),
              help="A folder of samples or one sample; may be given several times.")  # fmt: skip
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write the report as one HTML page.")
@json_option
def check(file: Path, samples: tuple[Path, ...], html: Path | None, as_json: bool) -> None:
    """Hold the profile FILE against samples and say what is mapped and what is not.

    Samples are HL7 v2, CDA, CSV and Excel of the standard views, action messages or FHIR; for a profile that maps a
    HIS's own tables, a CSV file or sheet for each table, named as the table, or an SQLite database of them.

    The report holds names of fields and codes, no other content. Exit code 0: every sample was converted, every
    resource is valid, every code has a map; 1: something of this is not so; 2: the profile itself cannot be used.

    \b
    Example:
      yiqiao profile check his.toml --sample samples/ --html report.html
    """
    from bridge.commands.profile_report import as_html, as_text, report_data
    from bridge.services.profile_check import ProfileCheck, sample_files
    from fhir_adapters import SourceProfile
    from fhir_adapters.codes import check_code_maps
    from fhir_adapters.errors import ProfileError

    try:
        chosen = SourceProfile.from_toml(file.read_bytes())
        check_code_maps(chosen)
    except ProfileError as error:
        raise click.UsageError(f"{file}: {error}") from error
    files = sample_files(samples)
    if not files:
        raise click.UsageError("no sample to look at: the folders hold none / 没有找到样本")
    run = ProfileCheck(chosen)
    report = run.run(files)
    told = report_data(chosen, run.kinds, run.samples, report)
    if html is not None:
        html.write_text(as_html(told), "utf-8")
    click.echo(json.dumps(told, ensure_ascii=False, indent=1) if as_json else as_text(told))
    sys.exit(0 if report.clean else 1)


@profile.command("new")
@click.option("--kind", type=click.Choice(KINDS), required=True, help="What the source sends.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
@click.option("--force", is_flag=True, help="Overwrite FILE.")
def new(kind: str, file: Path, force: bool) -> None:
    """Write a commented profile to begin with to FILE.

    \b
    Example:
      yiqiao profile new --kind hl7v2 his.toml
    """
    if file.exists() and not force:
        raise click.ClickException(f"{file} exists; choose another name or --force / 文件已存在，请换名或加 --force")
    text = (STARTERS / f"{kind}.toml").read_text("utf-8")
    name = "".join(each if each.isalnum() or each in "-_." else "-" for each in file.stem) or kind
    file.write_text(text.replace('name = "site"', f"name = {json.dumps(name, ensure_ascii=False)}", 1), "utf-8")
    click.echo(f"{file}: change what it says of your site, then / 按本院情况修改后运行：")
    click.echo(f"  yiqiao profile check {file} --sample DIR")


@profile.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """List the profiles that come with this program.

    \b
    Example:
      yiqiao profile list
    """
    from fhir_adapters import SourceProfile

    rows = []
    for path in sorted((CONFIG_DIRECTORY / "profiles").glob("*.toml")):
        read = SourceProfile.from_toml(path.read_bytes())
        first = path.read_text("utf-8").partition("\n")[0]
        about = first.removeprefix("#").strip().partition(". ")[0] if first.startswith("#") else ""
        rows.append({"name": path.stem, "about": about, "views": len(read.views), "file": str(path)})
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False))
        return
    for row in rows:
        click.echo(f"{row['name']:<22}{row['views']:>3} queries / 查询  {row['about']}".rstrip())
