#!/bin/sh
# Makes the node's home on its first start, then runs the given command.
#   YIQIAO_HOME             the volume (default /var/lib/yiqiao)
#   YIQIAO_INIT_ORG         18-character unified social credit code; without it no home is made
#   YIQIAO_INIT_NAME        the institution's name
#   YIQIAO_INIT_ROLE        hospital, authority, ...
#   YIQIAO_INIT_ENDPOINT    base URL under which the other members reach this node
#   YIQIAO_INIT_LEDGER_URL  for all but the member that hosts the ledger: its base URL
#   YIQIAO_INIT_SHARED      a folder that the institutions share at set-up: genesis.json and the member cards pass through it
set -eu
home=${YIQIAO_HOME:-/var/lib/yiqiao}
shared=${YIQIAO_INIT_SHARED:-}

if [ ! -e "$home/config.toml" ] && [ -n "${YIQIAO_INIT_ORG:-}" ]; then
  init="yiqiao init $home --org $YIQIAO_INIT_ORG --role ${YIQIAO_INIT_ROLE:-hospital} --http-host ${YIQIAO_HTTP__HOST:-0.0.0.0}"
  init="$init --http-port ${YIQIAO_HTTP__PORT:-8080} --mllp-port ${YIQIAO_MLLP__PORT:-2575}"
  [ -z "${YIQIAO_INIT_ENDPOINT:-}" ] || init="$init --endpoint $YIQIAO_INIT_ENDPOINT"
  [ -z "${YIQIAO_INIT_ENVIRONMENT:-}" ] || init="$init --environment $YIQIAO_INIT_ENVIRONMENT"
  [ -z "${YIQIAO_DATABASE__URL:-}" ] || init="$init --database $YIQIAO_DATABASE__URL"
  if [ -n "${YIQIAO_INIT_LEDGER_URL:-}" ]; then
    until [ -s "$shared/genesis.json" ]; do echo "waiting for $shared/genesis.json" >&2; sleep 1; done
    init="$init --ledger-url $YIQIAO_INIT_LEDGER_URL --genesis $shared/genesis.json"
  fi
  $init --name "${YIQIAO_INIT_NAME:-$YIQIAO_INIT_ORG}"
  if [ -n "$shared" ]; then
    if [ -n "${YIQIAO_INIT_LEDGER_URL:-}" ]; then
      yiqiao member card --home "$home" --out "$shared/card-$YIQIAO_INIT_ORG.json"
    else
      cp "$home/genesis.json" "$shared/genesis.json"
    fi
  fi
fi
exec "$@"
