"""The ledger over HTTP, for members whose engine is ``remote``: /ledger/v1 (docs/ledger.md has every message).

Reading and submitting need a live member's signed request, or the operator. What a submitted transaction may do, its
own signature and the contracts decide, not the caller's identity.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request

from anchor.chain import remote_wire as wire
from anchor.chain.cometbft.client import CometChain
from anchor.errors import FormatError
from bridge.auth import requires
from bridge.errors import InvalidRequest, NotFound

MAX_LIMIT = 1_000
NOTE_TYPE = "text/plain; charset=utf-8"
JSON_TYPE = "application/json"
BINARY_TYPE = "application/octet-stream"
HEADER_CALLS = frozenset({"commit", "validators", "consensus_params"})
"""What a joining node's light client asks other members' consensus engines for."""


def ledger_blueprint(node: Any) -> Blueprint:
    """Return /ledger/v1 over ``node.chain``."""
    blueprint = Blueprint("ledger", __name__, url_prefix="/ledger/v1")
    _add_transactions(blueprint, node)
    _add_checkpoints(blueprint, node)
    _add_state(blueprint, node)
    return blueprint


def _add_transactions(blueprint: Blueprint, node: Any) -> None:
    @blueprint.post("/transactions")
    @requires("ledger.submit")
    def submit() -> Response:
        """Submit transactions and wait for their blocks."""
        try:
            envelopes = wire.read_submission(request.get_data())
        except FormatError as error:
            raise InvalidRequest(str(error)) from None
        return _json(wire.write_results(node.chain.submit(envelopes)))

    @blueprint.get("/transactions")
    @requires("ledger.read")
    def transactions() -> Response:
        """A page of the ledger's log."""
        found = node.chain.transactions(_number("from"), min(_number("limit", MAX_LIMIT), MAX_LIMIT))
        return _json(wire.dump({"transactions": [wire.write_transaction(one) for one in found]}))

    @blueprint.get("/transactions/<tx_id>")
    @requires("ledger.read")
    def transaction(tx_id: str) -> Response:
        """One committed transaction, or null."""
        return _json(wire.dump({"transaction": wire.write_transaction(node.chain.transaction(tx_id))}))

    @blueprint.get("/next-seq/<org>")
    @requires("ledger.read")
    def next_seq(org: str) -> Response:
        """The sequence number expected next from a member."""
        return _json(wire.dump({"seq": node.chain.next_seq(org)}))


def _add_checkpoints(blueprint: Blueprint, node: Any) -> None:
    @blueprint.get("/checkpoint")
    @requires("ledger.read")
    def checkpoint() -> Response:
        """The newest checkpoint of the ledger's log; where members replicate it, also that of a size."""
        if request.args.get("size") is not None and isinstance(node.chain, CometChain):
            return Response(node.chain.checkpoint_of(_number("size")), content_type=NOTE_TYPE)
        return Response(node.chain.checkpoint(), content_type=NOTE_TYPE)

    @blueprint.get("/checkpoint/witnessed")
    @requires("ledger.read")
    def witnessed_checkpoint() -> Response:
        """The newest checkpoint with a quorum of cosignatures; no content when there is none."""
        note = node.chain.witnessed_checkpoint()
        return Response(status=204) if note is None else Response(note, content_type=NOTE_TYPE)

    @blueprint.post("/cosignatures")
    @requires("ledger.submit")
    def cosign() -> Response:
        """Hand in a cosigned checkpoint."""
        node.chain.cosign(request.get_data())
        return Response(status=204)

    @blueprint.get("/proofs/inclusion")
    @requires("ledger.read")
    def inclusion_proof() -> Response:
        """The inclusion proof of a log entry."""
        return _json(wire.write_hashes(node.chain.inclusion_proof(_number("index"), _number("size"))))

    @blueprint.get("/finality")
    @requires("ledger.read")
    def finality() -> Response:
        """The engine's own proof of finality (a light block); no content when there is none."""
        proof = node.chain.finality(_number("size"))
        return Response(status=204) if proof is None else Response(proof, content_type=BINARY_TYPE)

    @blueprint.get("/proofs/consistency")
    @requires("ledger.read")
    def consistency_proof() -> Response:
        """The consistency proof between two sizes."""
        return _json(wire.write_hashes(node.chain.consistency_proof(_number("size1"), _number("size2"))))


def _add_state(blueprint: Blueprint, node: Any) -> None:
    @blueprint.get("/state/<path:key>")
    @requires("ledger.read")
    def state(key: str) -> Response:
        """A committed state value, or null."""
        return _json(wire.dump({"value": node.chain.state(key)}))

    @blueprint.get("/state")
    @requires("ledger.read")
    def states() -> Response:
        """State values by prefix."""
        limit = min(_number("limit", MAX_LIMIT), MAX_LIMIT)
        return _json(wire.dump({"states": node.chain.state_with_prefix(request.args.get("prefix", ""), limit)}))

    @blueprint.post("/state")
    @requires("ledger.read")
    def several() -> Response:
        """Several state values by key and by prefix, and the newest block's time."""
        try:
            keys, prefixes = wire.read_question(request.get_data())
        except FormatError as error:
            raise InvalidRequest(str(error)) from None
        return _json(wire.write_reading(node.chain.states(keys, prefixes)))

    @blueprint.get("/state-proof/<path:key>")
    @requires("ledger.read")
    def state_proof(key: str) -> Response:
        """A state value with its proof."""
        return _json(wire.write_state_proof(node.chain.state_proof(key)))

    @blueprint.get("/headers/<method>")
    @requires("ledger.read")
    def headers(method: str) -> Response:
        """What this member's consensus engine answers about its headers, as it is: the caller verifies it."""
        if method not in HEADER_CALLS or not isinstance(node.chain, CometChain):
            raise NotFound("this member's ledger has no such headers")
        names = {"height", "page", "per_page"} & request.args.keys()
        return _json(wire.dump(node.chain.call(method, {name: str(_number(name)) for name in names})))

    @blueprint.get("/health")
    @requires("ledger.read")
    def health() -> Response:
        """Whether the ledger takes transactions now."""
        return _json(wire.write_health(node.chain.health()))


def _json(content: bytes) -> Response:
    return Response(content, content_type=JSON_TYPE)


def _number(name: str, default: int | None = None) -> int:
    """Return a whole number from the query string; raises ``InvalidRequest`` naming the parameter."""
    text = request.args.get(name)
    if text is None and default is not None:
        return default
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 16):
        raise InvalidRequest(f"the parameter {name} is a whole number")
    return int(text)
