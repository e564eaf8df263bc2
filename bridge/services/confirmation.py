"""A patient's confirmation of a consent: by a one-time code, by an SM2 signature, or on paper.

One-time code: six digits, valid for ten minutes and five tries, told to the patient by the hospital's own messaging
(SMS, an app). That system fetches each code once, with a token that may do nothing else; whoever sits at the desk
never sees it. Here only a keyed hash is kept once it was fetched.

Signature: GM/T 0010 SignedData over the consent's terms (``terms_statement``), by a certificate under one of the
anchors that the node's settings name (``consent.signature_anchors``): an electronic identity of the patient or the
guardian.

Paper: the number under which the signed form is kept, in the words of whoever took it, who stands in the audit trail.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Table, delete, select, update

from anchor import canonical
from bridge.errors import CertificateInvalid, Conflict, InvalidRequest, NotFound, SettingsError
from bridge.pki import gm_certificates as gm
from bridge.pki.signed_data import read_detached
from bridge.services.grant_terms import Confirmation, GrantTerms
from bridge.storage.database import transact, write_transaction
from bridge.storage.exchange import ConsentCode
from bridge.storage.keyring import NODE

if TYPE_CHECKING:
    from bridge.storage.keyring import KeyRing

CODE_DIGITS = 6
CODE_SECONDS = 600
MAX_TRIES = 5
MAX_DELIVERIES = 100
MAX_REFERENCE_CHARACTERS = 200
PURPOSE = "yiqiao/consent/v1"

_CODE: Table = ConsentCode.__table__  # type: ignore[attr-defined]


def terms_statement(grant: str, org: str, patient: str, terms: GrantTerms) -> bytes:
    """Return the bytes that a patient signs: the grant's id, the institution, and all terms but the confirmation."""
    value = {**terms.value(), "confirmation": None}
    return canonical.dump({"purpose": PURPOSE, "grant": grant, "org": org, "patient": patient, "terms": value})


class Confirmations:
    """Issues codes and checks evidence of confirmation."""

    def __init__(
        self,
        engine: Engine,
        keyring: KeyRing,
        *,
        anchors: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``anchors``: a PEM file with the SM2 certificates under which a patient's signature counts."""
        self._engine, self._keyring, self._anchors, self._clock = engine, keyring, anchors, clock

    def issue(self, connection: Connection, grant: str, consent: str, patient: str) -> None:
        """Make a fresh code for a draft; an earlier one no longer counts."""
        code = "".join(secrets.choice("0123456789") for _ in range(CODE_DIGITS))
        connection.execute(delete(_CODE).where(_CODE.c.grant_id == grant))
        connection.execute(
            _CODE.insert().values(
                grant_id=grant,
                consent_id=consent,
                patient_id=patient,
                code_blind=self._blind(grant, code),
                code_sealed=self._keyring.seal(connection, NODE, code.encode(), _aad(grant)),
                expires=int(self._clock()) + CODE_SECONDS,
                tries=0,
            )
        )

    def deliveries(self, limit: int = MAX_DELIVERIES) -> list[dict[str, Any]]:
        """Return the codes that wait to be told to patients, each once: consent, patient, code,
        expires (Unix seconds).
        """

        def work(connection: Connection) -> list[dict[str, Any]]:
            now = int(self._clock())
            connection.execute(delete(_CODE).where(_CODE.c.expires < now))
            waiting = select(_CODE).where(_CODE.c.code_sealed.is_not(None)).limit(min(limit, MAX_DELIVERIES))
            found = []
            for row in connection.execute(waiting.with_for_update()).all():
                code = self._keyring.open(connection, NODE, row.code_sealed, _aad(row.grant_id)).decode()
                connection.execute(update(_CODE).where(_CODE.c.grant_id == row.grant_id).values(code_sealed=None))
                found.append(
                    {"consent": row.consent_id, "patient": row.patient_id, "code": code, "expires": row.expires}
                )
            return found

        return transact(self._engine, work)

    def by_code(self, grant: str, code: str, by: str) -> Confirmation:
        """Return the confirmation that a code gives. Raises ``NotFound`` (none waits), ``InvalidRequest`` (wrong)."""

        def work(connection: Connection) -> bool | None:
            row = connection.execute(select(_CODE).where(_CODE.c.grant_id == grant).with_for_update()).first()
            if row is None or row.expires < self._clock() or row.tries >= MAX_TRIES:
                return None
            connection.execute(update(_CODE).where(_CODE.c.grant_id == grant).values(tries=row.tries + 1))
            return hmac.compare_digest(bytes(row.code_blind), self._blind(grant, code))

        right = transact(self._engine, work)
        if right is None:
            raise NotFound("no code waits for this consent, or it has ended; ask for another / 验证码不存在或已失效")
        if not right:
            raise InvalidRequest("the code is not right / 验证码错误")
        with write_transaction(self._engine) as connection:
            connection.execute(delete(_CODE).where(_CODE.c.grant_id == grant))
        return Confirmation("code", "one-time code", by, int(self._clock()))

    def by_signature(self, statement: bytes, data: str, by: str) -> Confirmation:
        """Return the confirmation that a signature gives; raises ``CertificateInvalid``, ``SettingsError``."""
        if self._anchors is None:
            raise SettingsError(
                "consent.signature_anchors names no certificates that patients sign under / 未配置签名信任锚"
            )
        try:
            signature = read_detached(base64.b64decode(data, validate=True))
        except (ValueError, binascii.Error) as error:
            raise CertificateInvalid("malformed", "the signature cannot be read / 签名格式错误") from error
        certificate = signature.own_certificate()
        if certificate is None:
            raise CertificateInvalid("unknown-issuer", "the signer's certificate did not come along / 缺少证书")
        now = int(self._clock())
        gm.verify_chain(
            certificate, signature.certificates, gm.read_anchors(self._anchors), at=now, usage="digital_signature"
        )
        signature.verify(statement, certificate.public)
        return Confirmation("signature", f"certificate {certificate.serial:x}", by, now)

    def on_paper(self, reference: str, by: str) -> Confirmation:
        """Return the confirmation that a signed form gives; ``reference`` is where the form is kept."""
        if not 0 < len(reference.strip()) <= MAX_REFERENCE_CHARACTERS:
            raise InvalidRequest("name where the signed form is kept / 须注明书面同意书编号")
        return Confirmation("paper", reference.strip(), by, int(self._clock()))

    def of_evidence(self, evidence: dict[str, str], grant: str, statement: bytes, by: str) -> Confirmation:
        """Return the confirmation of exactly one of ``code``, ``signature``, ``paper``."""
        given = {name: value for name, value in evidence.items() if value}
        if len(given) != 1:
            raise Conflict("confirm by one of: a code, a signature, a form on paper / 须且只能提供一种确认方式")
        ((method, value),) = given.items()
        if method == "code":
            return self.by_code(grant, value, by)
        return self.by_signature(statement, value, by) if method == "signature" else self.on_paper(value, by)

    def _blind(self, grant: str, code: str) -> bytes:
        return self._keyring.blind("consent.code", f"{grant}|{code}")


def _aad(grant: str) -> bytes:
    return f"consent-code|{grant}".encode()
