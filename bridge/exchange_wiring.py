"""The wiring's section on the exchange between institutions: from settings to its terms, and what stands on it."""

from __future__ import annotations

from typing import Any

from bridge.keys.decryption import DecryptionKeys
from bridge.node_keys import Signer
from bridge.services.abuse import Limits
from bridge.services.consent import ConsentRules
from bridge.services.decision import ApprovalRules, EmergencyRules
from bridge.services.erasure import ErasureService
from bridge.services.exchange_parts import ExchangeTerms, assemble_exchange
from bridge.services.localisation import LocalisationClient, LocalisationIndex
from bridge.services.patient_view import PatientView
from bridge.services.received_copies import ReceivedCopies
from bridge.services.release_content import PageBounds
from bridge.settings import Settings
from bridge.source_profiles import FHIR_PATH


def add_exchange(parts: dict[str, Any]) -> None:
    """Add the exchange, erasure and the patient's view to a node's parts."""
    settings: Settings = parts["settings"]
    signer: Signer = parts["signer"]
    exchange = settings.exchange
    terms = ExchangeTerms(
        chain_id=settings.ledger.chain,
        authority=exchange.authority,
        scope=exchange.scope,
        release_timeout_seconds=exchange.release_timeout_seconds,
        quorum=settings.witness.quorum,
        keys=parts["keys"],
        consent=ConsentRules(
            confirmation_required=(settings.consent.confirmation or ("required" if settings.production else "optional"))
            == "required",
            age_of_consent=settings.consent.age_of_consent,
        ),
        signature_anchors=settings.path(settings.consent.signature_anchors)
        if settings.consent.signature_anchors
        else None,
        base_url=settings.node.endpoint.rstrip("/") + FHIR_PATH,
        emergency=EmergencyRules(frozenset(exchange.emergency_roles), exchange.emergency_copies_days or None),
        limits=Limits(exchange.member_requests, exchange.practitioner_requests, exchange.suspicious_failures),
        pseudonyms_per_day=exchange.pseudonyms_per_day,
        approval=ApprovalRules(frozenset(exchange.approval_purposes), exchange.approval_sensitive),
        pages=PageBounds(exchange.page_records, exchange.page_bytes),
    )
    shared = (
        *("engine", "keyring", "records", "chain", "submitter", "anchoring", "audit", "signing", "peers", "facts"),
        "clock",
    )
    built = assemble_exchange(
        terms,
        signer=signer,
        decryption=DecryptionKeys(parts["keys"], signer.decrypt),
        **{name: parts[name] for name in shared},
    )
    erasure = ErasureService(
        parts["engine"],
        parts["keyring"],
        parts["inbox"],
        consent=built.consent,
        localisation=_localisation(parts, built.index),
        audit=parts["audit"],
        anchoring=parts["anchoring"],
        clock=parts["clock"],
    )
    parts |= {
        "pseudonyms": built.pseudonyms,
        "localisation": built.index,
        "consent": built.consent,
        "exchange": built.exchange,
        "reviews": built.reviews,
        "watch": built.watch,
        "patient_view": PatientView(
            parts["engine"],
            parts["records"],
            parts["search"],
            parts["receipts"],
            parts["anchoring"],
            parts["audit"],
            chain_id=settings.ledger.chain,
            key=signer.sign,
            base_url=terms.base_url,
            clock=parts["clock"],
        ),
        "approvals": built.approvals,
        "exchange_parts": built,
        "erasure": erasure,
        "copies": ReceivedCopies(parts["engine"], erasure, parts["clock"]),
    }


def _localisation(parts: dict[str, Any], index: LocalisationIndex) -> LocalisationClient | None:
    """Return this node's side of the localisation index, None where there is no card authority."""
    org, authority = parts["signer"].org, parts["settings"].exchange.authority
    if not authority:
        return None
    return LocalisationClient(parts["peers"], org, authority, index if authority == org else None)
