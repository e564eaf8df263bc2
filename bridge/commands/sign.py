"""`yiqiao practitioner`, `sign`, `check-signature`: records signed by institution and person, verified offline."""

from __future__ import annotations

import json
import re
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bridge.commands.node import home_option, json_option

if TYPE_CHECKING:
    from bridge.pki.practitioners import PractitionerRegister
    from bridge.services.record_signature import SignatureReport

_REFERENCE = re.compile(
    r"(?P<type>[A-Z][A-Za-z]{1,63})/(?P<id>[A-Za-z0-9\-.]{1,64})(?:/_history/(?P<version>[0-9]{1,9}))?"
)
existing_file = click.Path(exists=True, dir_okay=False, path_type=Path)
new_file = click.Path(dir_okay=False, path_type=Path)
passphrase_option = click.option(
    "--passphrase-file", type=existing_file, help="File with the passphrase of the practitioner's key (mode 0600)."
)
DEFAULT_DAYS = 365
MAX_DAYS = 5 * 366


@click.group("practitioner")
def practitioner() -> None:
    """Certify the signing keys of this institution's practitioners.

    \b
    Example:
      yiqiao practitioner issue --home ~/node --id D1007 --name 李医生 --role physician \\
        --key-out D1007.key.json --passphrase-file secret
    """


@practitioner.command("issue")
@home_option
@click.option("--id", "id_", required=True, metavar="ID", help="The practitioner's identifier at this institution.")
@click.option("--name", required=True)
@click.option("--role", required=True, help="For example physician, nurse, pharmacist.")
@click.option("--days", type=click.IntRange(1, MAX_DAYS), default=DEFAULT_DAYS, show_default=True)
@click.option("--key-out", type=new_file, help="Make a key and write it here, under the passphrase.")
@passphrase_option
@click.option("--public", metavar="HEX", help="Certify this SM2 public key (04||X||Y) instead: of a card or token.")
@click.option("--certificate-out", type=new_file, help="Write the certificate here (PEM).")
def issue(
    home: Path,
    id_: str,
    name: str,
    role: str,
    days: int,
    key_out: Path | None,
    passphrase_file: Path | None,
    public: str | None,
    certificate_out: Path | None,
) -> None:
    """Issue an SM2 certificate to a practitioner, over a new key or over one on a card of theirs.

    \b
    Example:
      yiqiao practitioner issue --home ~/node --id D1007 --name 李医生 --role physician --key-out D1007.key.json \\
        --passphrase-file secret
    """
    from anchor.errors import KeyFormatError
    from anchor.gm import PrivateKey, PublicKey
    from bridge.keys.provider import read_secret_file
    from bridge.pki.practitioners import PractitionerKey, write_key_file

    if (key_out is None) == (public is None) or (key_out is not None and passphrase_file is None):
        raise click.UsageError("give --key-out with --passphrase-file, or --public / 请指定密钥文件与口令，或公钥")
    register = _register(home)
    if key_out is not None:
        passphrase = read_secret_file(passphrase_file, "--passphrase-file")
        key = PrivateKey.generate()
        certificate = register.issue(id_, name, role, key.public_key, days)
        write_key_file(key_out, PractitionerKey(id_, name, key, certificate, register.issuing()), passphrase)
        click.echo(f"wrote {key_out} / 已写入人员密钥")
    else:
        try:
            certificate = register.issue(id_, name, role, PublicKey.from_bytes(bytes.fromhex(public or "")), days)
        except (ValueError, KeyFormatError) as error:
            raise click.BadParameter("130 hexadecimal digits of an SM2 public key / 公钥格式错误") from error
    if certificate_out is not None:
        certificate_out.write_text(certificate.pem(), "ascii")
    click.echo(f"certificate {certificate.serial:x} for {name} / 已签发证书")


@practitioner.command("list")
@home_option
@json_option
def list_(home: Path, as_json: bool) -> None:
    """List the certificates this institution issued to practitioners.

    \b
    Example:
      yiqiao practitioner list --home ~/node
    """
    issued = _register(home).issued()
    if as_json:
        click.echo(json.dumps(issued, ensure_ascii=False))
        return
    for each in issued:
        until = time.strftime("%Y-%m-%d", time.localtime(each["until"]))
        state = "revoked" if each["revoked"] else "in force"
        click.echo(f"{each['id']:<16} {each['role']:<14} until {until}  {state}  {each['serial']}  {each['name']}")


@practitioner.command("revoke")
@click.argument("serial")
@home_option
def revoke(serial: str, home: Path) -> None:
    """Revoke a practitioner's certificate: this node signs nothing with it any more.

    \b
    Example:
      yiqiao practitioner revoke 1f3a… --home ~/node
    """
    _register(home).revoke(serial.lower())
    click.echo(f"revoked {serial} / 已吊销")


@click.command("sign")
@click.argument("reference", metavar="Type/id[/_history/v]")
@home_option
@click.option("--practitioner", "key_file", type=existing_file, help="A practitioner's key file; they sign as well.")
@passphrase_option
@json_option
def sign(reference: str, home: Path, key_file: Path | None, passphrase_file: Path | None, as_json: bool) -> None:
    """Sign a record version by this institution's key, and by a practitioner's; prints the stored Provenance.

    \b
    Example:
      yiqiao sign DiagnosticReport/0b5f4c1e-9c1d-8f7a-b3a2-111111111111 --home ~/node \\
        --practitioner D1007.key.json --passphrase-file secret
    """
    from bridge.keys.provider import read_secret_file
    from bridge.pki.practitioners import read_key_file
    from bridge.wiring import open_node

    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise click.UsageError("name a record as Type/id or Type/id/_history/version / 记录写法不对")
    key = None
    if key_file is not None:
        key = read_key_file(key_file, read_secret_file(passphrase_file, "--passphrase-file"))
        _register(home).check(key)
    with closing(open_node(home)) as node:
        version = match["version"]
        stored = node.signing.sign(match["type"], match["id"], None if version is None else int(version), key)
    if as_json:
        click.echo(json.dumps({"provenance": stored.ref, "digest": stored.digest.hex()}))
    else:
        click.echo(f"{stored.ref} / 已签名")
        click.echo(f"its receipt dates the signature: yiqiao receipt {stored.ref} --home {home}", err=True)


@click.command("check-signature")
@click.argument("provenance", type=existing_file)
@click.option("--trust", required=True, type=existing_file, help="The consortium's trust file.")
@click.option("--receipt", type=existing_file, help="The Provenance's own receipt: it dates the signature.")
@click.option("--resource", "resources", type=existing_file, multiple=True, help="A signed record; repeatable.")
@json_option
def check_signature(
    provenance: Path, trust: Path, receipt: Path | None, resources: tuple[Path, ...], as_json: bool
) -> None:
    """Check a signed Provenance offline: who signed what, when, with which key; works across key rotations.

    Exit code 0: every signature holds; 1: one does not, and why.

    \b
    Example:
      yiqiao check-signature provenance.json --trust trust.json --receipt receipt.json --resource report.json
    """
    from bridge.errors import CertificateInvalid

    try:
        report = _checked(provenance, trust, receipt, resources)
    except CertificateInvalid as error:
        if as_json:
            click.echo(json.dumps({"verified": False, "code": error.code, "reason": str(error)}, ensure_ascii=False))
        else:
            click.echo(f"NOT VERIFIED ({error.code}): {error} / 验证未通过", err=True)
        sys.exit(1)
    if as_json:
        click.echo(json.dumps({"verified": True, **_value(report)}, ensure_ascii=False))
        return
    for each in report.signatures:
        moment = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(each.when))
        click.echo(f"signed by {each.who} {each.name}, {moment}, key {each.key} / 签名有效")
    for ref, digest in report.targets:
        at_hand = "at hand and unchanged / 内容一致" if ref in report.checked else "not at hand / 未提供内容"
        click.echo(f"  {ref}  SM3 {digest}  {at_hand}")
    if report.dated is None:
        click.echo("the time is the signers' word: no receipt was given / 未提供回执，时间为签名方自述")
    else:
        moment = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(report.dated))
        click.echo(f"it existed by {moment}, says the ledger / 账本时间")


def _checked(provenance: Path, trust: Path, receipt: Path | None, resources: tuple[Path, ...]) -> SignatureReport:
    from anchor import canonical
    from anchor.errors import AnchorError
    from anchor.trust import Trust
    from anchor.verify import verify_receipt
    from bridge.errors import CertificateInvalid
    from bridge.services.record_signature import verify_provenance

    content, dated = provenance.read_bytes(), None
    try:
        value = canonical.load(content)
        if receipt is not None:
            report = verify_receipt(receipt.read_bytes(), trust.read_bytes(), resource=content, minimum="committed")
            dated = report.time
        records = {_ref(each): each.read_bytes() for each in resources}
        parsed = Trust.parse(trust.read_bytes())
    except AnchorError as error:
        raise CertificateInvalid("receipt", str(error)) from error
    if not isinstance(value, dict):
        raise CertificateInvalid("malformed", "the file is no Provenance / 文件不是 Provenance")
    return verify_provenance(value, parsed, resources=records, dated=dated)


def _ref(file: Path) -> str:
    from anchor import canonical

    value = canonical.load(file.read_bytes())
    meta = value.get("meta", {}) if isinstance(value, dict) else {}
    return f"{value.get('resourceType')}/{value.get('id')}/_history/{meta.get('versionId')}"


def _value(report: SignatureReport) -> dict[str, Any]:
    return {
        "signatures": [
            {"who": each.who, "name": each.name, "when": each.when, "key": each.key} for each in report.signatures
        ],
        "targets": [{"ref": ref, "digest": digest, "checked": ref in report.checked} for ref, digest in report.targets],
        "dated": report.dated,
    }


def _register(home: Path) -> PractitionerRegister:
    from bridge.node_keys import load_signer
    from bridge.pki.practitioners import PractitionerRegister
    from bridge.settings import load_settings

    settings = load_settings(home)
    signer = load_signer(settings)
    return PractitionerRegister(settings.path(settings.peer_tls.directory), signer.org, signer.sign)
