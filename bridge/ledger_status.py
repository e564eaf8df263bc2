"""What a member wants to know of its replica of the ledger: its condition."""

from __future__ import annotations

import time
from typing import Any

from anchor.chain.cometbft import node_files
from anchor.chain.cometbft.client import CometChain
from anchor.errors import ChainError
from bridge.errors import InvalidRequest
from bridge.replica_process import comet_home
from bridge.settings import Settings


def ledger_status(settings: Settings) -> dict[str, Any]:
    """Return the condition of this node's replica, with stable names; never raises for a ledger that is away."""
    if settings.ledger.engine != "cometbft":
        raise InvalidRequest(f"this node's ledger.engine is {settings.ledger.engine} / 本节点未参与复制账本")
    home = comet_home(settings)
    identity = node_files.read_identity(home)
    found: dict[str, Any] = {
        "ok": False, "chain": settings.ledger.chain, "org": settings.node.org, "node": identity.node,
        "key": identity.key.hex(), "detail": "", "height": 0, "log_size": 0, "app_hash": "", "comet_height": 0,
        "catching_up": None, "block_age_seconds": None, "peers": [], "validators": [], "power": 0,
    }  # fmt: skip
    chain = CometChain(f"http://127.0.0.1:{settings.cometbft.rpc_port}", home=home, timeout_seconds=5)
    try:
        health = chain.health()
        found |= {"ok": health.ok, "detail": health.detail, "height": health.height, "log_size": health.log_size}
        if health.height or health.ok:
            found |= _details(chain, identity.key.hex())
            found["block_age_seconds"] = max(0, int(time.time()) - health.block_time)
    except (ChainError, KeyError, TypeError, ValueError) as error:
        found |= {"ok": False, "detail": found["detail"] or str(error)}
    finally:
        chain.close()
    return found


def _details(chain: CometChain, key: str) -> dict[str, Any]:
    sync = chain.status()["sync_info"]
    state = chain.state("validators") or {"set": []}
    nodes = {str(node["node"]): str(node["org"]) for node in chain.state_with_prefix("node/").values()}
    peers = [str(peer["node_info"]["id"]) for peer in chain.call("net_info")["peers"]]
    return {
        "app_hash": str(sync["latest_app_hash"]).lower(),
        "comet_height": int(sync["latest_block_height"]),
        "catching_up": bool(sync["catching_up"]),
        "peers": [{"node": node, "org": nodes.get(node, "")} for node in sorted(peers)],
        "validators": [{"org": each["org"], "power": each["power"]} for each in state["set"]],
        "power": next((each["power"] for each in state["set"] if each["key"] == key), 0),
    }


def status_text(found: dict[str, Any]) -> str:
    """Return the condition in plain words."""
    word = "healthy / 正常" if found["ok"] else f"NOT HEALTHY / 异常: {found['detail']}"
    part = f"validator with power {found['power']}" if found["power"] else "follows without voting"
    total = sum(each["power"] for each in found["validators"])
    lines = [
        f"{found['chain']}: {word}",
        f"  ledger height {found['height']}, {found['log_size']} transactions; CometBFT height {found['comet_height']}",
        f"  this node {found['node']}: {part}",
        f"  {len(found['peers'])} peers: {', '.join(each['org'] or each['node'] for each in found['peers'])}",
        f"  {len(found['validators'])} validators, power {total} in all",
    ]
    if found["block_age_seconds"] is not None:
        lines.insert(2, f"  last block {found['block_age_seconds']} s ago")
    return "\n".join(lines)
