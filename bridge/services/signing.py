"""Signing records on demand: the institution's key always, a practitioner's where one is given.

The Provenance is stored like any record, sealed for the patient it is about, logged and anchored: its receipt dates the
signature.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from anchor.gm import sm3
from bridge.errors import SealBroken
from bridge.pki import gm_certificates as gm
from bridge.pki.practitioners import PractitionerKey
from bridge.pki.tls_identity import GM_SIGN
from bridge.services.record_signature import Target, signed_provenance
from bridge.storage.database import transact
from bridge.storage.records import Lineage

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Engine

    from anchor.gm import PrivateKey
    from bridge.services.audit_event import Party
    from bridge.storage.record_versions import StoredVersion
    from bridge.storage.records import RecordStore

ADAPTER = "yiqiao-signature/1.0"


class SigningService:
    """Signs for one institution. ``certificates`` is the directory that holds its SM2 certificate, if it has one."""

    def __init__(
        self,
        engine: Engine,
        records: RecordStore,
        *,
        node: Party,
        key: PrivateKey,
        chain_id: str,
        certificates: Path,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._engine, self._records, self._node, self._key = engine, records, node, key
        self._chain_id, self._directory, self._clock = chain_id, certificates, clock

    def sign(
        self, type: str, id: str, version: int | None = None, practitioner: PractitionerKey | None = None
    ) -> StoredVersion:
        """Sign a record version (the current one when None) and return the stored Provenance.

        Raises ``NotFound``, ``Gone``, ``KeyDestroyed``.
        """
        found = self._records.read(type, id) if version is None else self._records.vread(type, id, version)
        provenance = self.provenance([(found.ref, found.digest.hex())], f"signed-{uuid.uuid4()}", practitioner)
        lineage = Lineage(f"signature:{self._node.id}", sm3(found.digest), ADAPTER)
        result = transact(
            self._engine, lambda connection: self._records.put(connection, provenance, lineage, found.subject)
        )
        if result.stored is None:
            raise SealBroken
        return result.stored

    def provenance(
        self, targets: Sequence[Target], id: str, practitioner: PractitionerKey | None = None
    ) -> dict[str, object]:
        """Return a signed Provenance over record versions, without storing it."""
        return signed_provenance(
            targets,
            id=id,
            org=self._node.id,
            name=self._node.name,
            chain=self._chain_id,
            key=self._key,
            now=int(self._clock()),
            certificates=self._certificates(),
            practitioner=practitioner,
        )

    def _certificates(self) -> tuple[gm.GmCertificate, ...]:
        """Return the institution's own SM2 certificate, when it has one over the key it signs with."""
        file = self._directory / GM_SIGN
        if not file.is_file():
            return ()
        certificate = gm.parse(file.read_bytes())
        return (certificate,) if certificate.public == self._key.public_key else ()
