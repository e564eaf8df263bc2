"""The CapabilityStatement, generated from the table of search parameters: it cannot promise what is not there."""

from __future__ import annotations

from typing import Any

from bridge.settings import Settings
from bridge.storage.search_parameters import SEARCH_PARAMETERS
from fhir_adapters.fhir_json.bundle import NOT_TAKEN

FHIR_VERSION = "4.0.1"
SOFTWARE_VERSION = "0.1.0"
STATEMENT_DATE = "2026-11-23"  # when the offered interactions last changed
INTERACTIONS = ("read", "vread", "history-instance", "history-type", "search-type")
WRITES = ("create", "update")
COMMON_PARAMETERS = (("_id", "token"), ("_lastUpdated", "date"))


def capability_statement(settings: Settings) -> dict[str, Any]:
    """Return this node's CapabilityStatement (http://hl7.org/fhir/R4/capabilitystatement.html)."""
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": STATEMENT_DATE,
        "kind": "instance",
        "software": {"name": "Yiqiao 医桥", "version": SOFTWARE_VERSION},
        "implementation": {"description": settings.node.name, "url": f"{settings.node.endpoint.rstrip('/')}/fhir"},
        "fhirVersion": FHIR_VERSION,
        "format": ["json"],
        "rest": [
            {
                "mode": "server",
                "documentation": "Records come from source systems; those that send FHIR write it here.",
                "security": {"cors": False, "description": "Bearer token issued by the node's operator."},
                "interaction": [{"code": "transaction"}, {"code": "batch"}],
                "resource": [_resource(type) for type in sorted(SEARCH_PARAMETERS)],
            }
        ],
    }


def _resource(type: str) -> dict[str, Any]:
    parameters = [*COMMON_PARAMETERS, *((each.name, each.fhir_type) for each in SEARCH_PARAMETERS[type])]
    return {
        "type": type,
        "interaction": [{"code": code} for code in (*INTERACTIONS, *(() if type in NOT_TAKEN else WRITES))],
        "versioning": "versioned",
        "readHistory": True,
        "updateCreate": type not in NOT_TAKEN,
        "conditionalCreate": type not in NOT_TAKEN,
        "conditionalRead": "full-support",
        "searchParam": [{"name": name, "type": kind} for name, kind in parameters],
    }
