"""The one place where errors become HTTP answers.

``OUTCOMES`` is an ordered table, most specific error first; the first type that matches decides. What the client
reads is the error's own text where the table says so (the packages' errors are written for clients) and a fixed
sentence otherwise; what is not in the table is "internal error", and its type goes to the log.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from werkzeug import exceptions as http

from anchor import errors as anchor_errors
from bridge import errors
from bridge.peer_signature import PeerSignatureError
from fhir_adapters.errors import AdapterError

FHIR_JSON = "application/fhir+json"
RETRY_AFTER_SECONDS = "5"
INTERNAL_TEXT = "internal error; the node's log has the details / 内部错误，详情见节点日志"


@dataclass(frozen=True, slots=True)
class Outcome:
    """An HTTP answer to an error. ``code`` is from http://hl7.org/fhir/issue-type."""

    status: int
    code: str
    text: str


#: (error type, HTTP status, issue code, fixed text or None for the error's own)
OUTCOMES: tuple[tuple[type[BaseException], int, str, str | None], ...] = (
    (errors.AuthenticationRequired, 401, "login", None),
    (PeerSignatureError, 401, "login", None),
    (errors.PermissionDenied, 403, "forbidden", None),
    (errors.DisclosureRefused, 403, "suppressed", None),
    (errors.SearchParameterError, 400, "not-supported", None),
    (errors.InvalidRequest, 400, "invalid", None),
    (errors.CertificateInvalid, 400, "invalid", None),
    (errors.IngestError, 422, "invalid", None),
    (errors.Gone, 410, "deleted", None),
    (errors.NotFound, 404, "not-found", None),
    (errors.PreconditionFailed, 412, "conflict", None),
    (errors.Conflict, 409, "conflict", None),
    (errors.KeyDestroyed, 410, "deleted", None),
    (errors.DatabaseUnavailable, 503, "transient", None),
    (errors.Overloaded, 503, "throttled", None),
    (errors.QuotaExceeded, 429, "throttled", None),
    (errors.PeerUnavailable, 504, "transient", None),
    (errors.PeerRejected, 502, "processing", None),
    (AdapterError, 422, "invalid", None),
    (anchor_errors.TransactionRejected, 409, "conflict", None),
    (anchor_errors.ChainUnavailable, 503, "transient", "the ledger cannot be reached; try again / 暂时无法连接账本"),
    (anchor_errors.ChainCorrupt, 500, "exception", INTERNAL_TEXT),
    (anchor_errors.CanonicalError, 400, "structure", None),
    (anchor_errors.AnchorError, 400, "invalid", None),
    (errors.BridgeError, 500, "exception", INTERNAL_TEXT),
    (http.RequestEntityTooLarge, 413, "too-long", "the request body is larger than this node accepts"),
    (http.NotFound, 404, "not-found", "there is nothing at this address"),
    (http.MethodNotAllowed, 405, "not-supported", "this method is not offered at this address"),
    (http.UnsupportedMediaType, 415, "not-supported", "this content type is not accepted here"),
    (http.NotAcceptable, 406, "not-supported", "this node answers in JSON only"),
    (http.BadRequest, 400, "invalid", "the request cannot be read"),
)


def outcome_for(error: BaseException) -> Outcome:
    """Return the answer for ``error``: the first row of the table it is an instance of."""
    for kind, status, code, text in OUTCOMES:
        if isinstance(error, kind):
            return Outcome(status, code, text if text is not None else str(error))
    if isinstance(error, http.HTTPException) and error.code is not None:
        return Outcome(error.code, "processing", error.name)
    return Outcome(500, "exception", INTERNAL_TEXT)


def operation_outcome(outcome: Outcome, severity: str = "error") -> bytes:
    """Return the FHIR OperationOutcome of an answer as JSON bytes."""
    issue = {"severity": severity, "code": outcome.code, "diagnostics": outcome.text}
    return json.dumps({"resourceType": "OperationOutcome", "issue": [issue]}, ensure_ascii=False).encode()
