#!/bin/sh
# Makes the node's home on its first start, then runs the given command.
#   YIQIAO_HOME             the volume (default /var/lib/yiqiao)
#   YIQIAO_INIT_ORG         18-character unified social credit code; without it no home is made
#   YIQIAO_INIT_NAME        the institution's name
#   YIQIAO_INIT_ROLE        hospital, authority, ...
#   YIQIAO_INIT_ENDPOINT    base URL under which the other members reach this node
#   YIQIAO_INIT_SHARED      a folder that the institutions share at set-up: what passes through it is public
# With one host of the ledger, genesis.json and the member cards pass through the shared folder:
#   YIQIAO_INIT_LEDGER_URL  for all but the member that hosts the ledger: its base URL
# With a ledger that the members replicate, their cards and the ledger file do:
#   YIQIAO_INIT_CHAIN       the ledger's name
#   YIQIAO_INIT_P2P_ADDRESS host:port at which the other members' nodes reach this one
#   YIQIAO_INIT_MEMBERS     for the founding authority: the codes of the others, separated by spaces
set -eu
home=${YIQIAO_HOME:-/var/lib/yiqiao}
shared=${YIQIAO_INIT_SHARED:-}
org=${YIQIAO_INIT_ORG:-}

await() {
  until [ -s "$1" ]; do echo "waiting for $1" >&2; sleep 1; done
}

make_home() {
  init="yiqiao init $home --org $org --role ${YIQIAO_INIT_ROLE:-hospital} --http-host ${YIQIAO_HTTP__HOST:-0.0.0.0}"
  init="$init --http-port ${YIQIAO_HTTP__PORT:-8080} --mllp-port ${YIQIAO_MLLP__PORT:-2575}"
  [ -z "${YIQIAO_INIT_ENDPOINT:-}" ] || init="$init --endpoint $YIQIAO_INIT_ENDPOINT"
  [ -z "${YIQIAO_INIT_ENVIRONMENT:-}" ] || init="$init --environment $YIQIAO_INIT_ENVIRONMENT"
  [ -z "${YIQIAO_DATABASE__URL:-}" ] || init="$init --database $YIQIAO_DATABASE__URL"
  [ -z "${YIQIAO_INIT_P2P_ADDRESS:-}" ] || init="$init --replicated --chain $YIQIAO_INIT_CHAIN"
  if [ -n "${YIQIAO_INIT_LEDGER_URL:-}" ]; then
    await "$shared/genesis.json"
    init="$init --ledger-url $YIQIAO_INIT_LEDGER_URL --genesis $shared/genesis.json"
  fi
  $init --name "${YIQIAO_INIT_NAME:-$org}"
}

# Hand what the others need to the shared folder; a file appears there whole.
share() {
  [ -w "$shared" ] || { echo "$shared is read-only: hand the card over by hand / 共享目录只读，请手工提交成员卡" >&2; return; }
  if [ -n "${YIQIAO_INIT_P2P_ADDRESS:-}" ]; then
    yiqiao ledger card --home "$home" --p2p-address "$YIQIAO_INIT_P2P_ADDRESS" --out "$shared/.card-$org"
    mv "$shared/.card-$org" "$shared/ledger-card-$org.json"
  elif [ -n "${YIQIAO_INIT_LEDGER_URL:-}" ]; then
    yiqiao member card --home "$home" --out "$shared/card-$org.json"
  else
    cp "$home/genesis.json" "$shared/genesis.json"
  fi
}

# Found the replicated ledger from everybody's cards, or join the one that was founded.
join_ledger() {
  if [ -n "${YIQIAO_INIT_MEMBERS:-}" ]; then
    cards=
    for member in $YIQIAO_INIT_MEMBERS; do
      await "$shared/ledger-card-$member.json"
      cards="$cards $shared/ledger-card-$member.json"
    done
    yiqiao ledger init $cards --home "$home" --out "$shared/.ledger"
    mv "$shared/.ledger" "$shared/ledger.json"
  else
    await "$shared/ledger.json"
    yiqiao ledger join "$shared/ledger.json" --home "$home"
  fi
}

if [ -n "$org" ] && [ ! -e "$home/config.toml" ]; then
  make_home
  [ -z "$shared" ] || share
fi
if [ -n "$org" ] && [ -n "${YIQIAO_INIT_P2P_ADDRESS:-}" ] && [ ! -e "$home/cometbft/config/genesis.json" ]; then
  join_ledger
fi
exec "$@"
