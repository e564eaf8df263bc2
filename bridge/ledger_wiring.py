"""The wiring's section on the ledger and the other members: engine, facts, peers, gossip, certificates."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from requests import Session

from anchor import genesis as chain_genesis
from anchor.chain.client import ChainClient
from anchor.chain.cometbft.client import CometChain
from anchor.chain.embedded import EmbeddedChain
from anchor.chain.followed import FollowedLedger
from anchor.chain.remote import RemoteChain
from bridge.errors import SettingsError
from bridge.metrics import LedgerHealth
from bridge.node_keys import Signer
from bridge.peer_signature import PeerAuth
from bridge.pki.authority import CertificateAuthority
from bridge.services.cosignatures import CosignatureExchange
from bridge.services.gossip import CheckpointGossip
from bridge.services.ledger_facts import LedgerFacts
from bridge.services.peers import MemberDirectory, PeerRules, Peers, open_session
from bridge.services.submission import TransactionSubmitter, Turns
from bridge.settings import Settings
from bridge.storage.local_turn import LocalTurn

Clock = Callable[[], float]
SUBMISSION_SUFFIX = ".submission"
"""Of the file beside the database whose lock orders the submissions to the ledger."""


def add_ledger(parts: dict[str, Any], resources: ExitStack) -> None:
    """Add what talks to the ledger and the members to a node's parts."""
    settings: Settings = parts["settings"]
    clock: Clock = parts["clock"]
    signer: Signer = parts["signer"]
    genesis = read_genesis(settings)
    tls, rules = settings.tls_identity(), peer_rules(settings)
    gossip = CheckpointGossip(parts["engine"], settings.ledger.chain, signer.org, clock)

    def session(org: str) -> Session:
        return gossip.listen(open_session(rules, tls, org, check_address=False), org)

    chain = _chain(settings, signer, genesis, session, gossip, clock)
    resources.callback(chain.close)
    replay = FollowedLedger(settings.path(settings.ledger.path), genesis) if settings.observes else None
    if replay is not None:
        resources.callback(replay.close)
    exchange = settings.exchange
    facts = LedgerFacts(parts["engine"], chain, max_age_seconds=exchange.ledger_cache_seconds, clock=clock)
    peers = Peers(
        directory=MemberDirectory(facts),
        org=signer.org,
        key=signer.sign,
        nonces=parts["nonces"],
        rules=rules,
        addresses={exchange.authority: exchange.authority_url} if exchange.authority else {},
        tls=tls,
        gossip=gossip,
        clock=clock,
    )
    resources.callback(peers.close)
    parts |= {
        "chain": chain,
        "replay": replay,
        "ledger_health": LedgerHealth(chain),
        "facts": facts,
        "submitter": TransactionSubmitter(chain, _turns(parts), signer.org, signer.sign, settings.ledger.chain, clock),
        "gossip": gossip,
        "peers": peers,
        "cosignatures": CosignatureExchange(chain, peers, signer.org) if isinstance(chain, CometChain) else None,
        "tls": tls,
        "certificates": CertificateAuthority(
            settings.path(settings.peer_tls.directory) / "authority", parts["keys"], settings.ledger.chain, clock
        ),
    }


def _turns(parts: dict[str, Any]) -> Turns:
    """Return what orders this node's submissions; where its database is a file, its processes are on one machine."""
    database = parts["engine"].url
    if database.get_backend_name() != "sqlite":
        leases: Turns = parts["leases"]
        return leases
    return LocalTurn(Path(database.database).with_suffix(SUBMISSION_SUFFIX))


def peer_rules(settings: Settings) -> PeerRules:
    """Return which addresses of members this node may dial."""
    networks = tuple(ip_network(network) for network in settings.exchange.private_networks)
    return PeerRules(https_only=settings.production, allow_local=not settings.production, networks=networks)


def _chain(
    settings: Settings,
    signer: Signer,
    genesis: bytes,
    session: Callable[[str], Session],
    gossip: CheckpointGossip,
    clock: Clock,
) -> ChainClient:
    """Open the engine. The hosting member of a remote ledger is the one of the genesis file that has its address."""
    ledger = settings.ledger
    if ledger.engine == "embedded":
        return EmbeddedChain(
            settings.path(ledger.path),
            genesis=genesis,
            host_key=signer.sign,
            host_org=signer.org,
            clock=clock,
            quorum=settings.witness.quorum or None,
        )
    if ledger.engine == "cometbft":
        comet = settings.cometbft
        return CometChain(
            f"http://127.0.0.1:{comet.rpc_port}",
            home=settings.path(comet.directory),
            timeout_seconds=ledger.timeout_seconds,
            clock=clock,
        )
    host = ledger_host(settings, genesis)
    auth = PeerAuth(org=signer.org, key=signer.sign, audience=host, clock=clock, checkpoint=gossip.newest)
    return RemoteChain(ledger.url, auth=auth, timeout_seconds=ledger.timeout_seconds, session=lambda: session(host))


def ledger_host(settings: Settings, genesis: bytes) -> str:
    """Return the org that hosts a remote ledger: ``ledger.host``, or the founding authority of the genesis file."""
    if settings.ledger.host:
        return settings.ledger.host
    members = chain_genesis.parse(genesis).members
    return str(next(member["org"] for member in members if "authority" in member["roles"]))


def read_genesis(settings: Settings) -> bytes:
    """Return the bytes of the ledger's genesis file."""
    try:
        return settings.path(settings.ledger.genesis).read_bytes()
    except OSError as error:
        raise SettingsError(f"ledger.genesis cannot be read: {error.strerror} / 无法读取创世文件") from error
