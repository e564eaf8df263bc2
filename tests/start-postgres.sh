#!/bin/sh
# Start a private PostgreSQL for the tests and print its URL.
#
#   tests/start-postgres.sh DIR      start a server whose data lies below DIR; prints postgresql+psycopg://...
#   tests/stop-postgres.sh DIR       stop it again
#
# The server listens on 127.0.0.1 on a free port, takes connections from this machine without a password, and keeps nothing
# worth keeping (it does not even wait for the disk). PostgreSQL refuses to run as root: then it runs as the system user "postgres".
set -eu

[ $# -eq 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
directory=$1
name=$(basename "$0" .sh)

bin=
for candidate in "$(command -v pg_ctl 2>/dev/null || true)" /usr/lib/postgresql/*/bin/pg_ctl; do
    if [ -x "$candidate" ] && [ -x "$(dirname "$(readlink -f "$candidate")")/initdb" ]; then
        bin=$(dirname "$(readlink -f "$candidate")")
    fi
done
if [ -z "$bin" ]; then
    echo "PostgreSQL is not installed; on Debian: apt-get install postgresql" >&2
    exit 1
fi

as_server() {
    if [ "$(id -u)" -eq 0 ]; then
        su postgres -s /bin/sh -c "cd / && $1"
    else
        sh -c "$1"
    fi
}

if [ "$name" = stop-postgres ]; then
    as_server "'$bin/pg_ctl' -D '$directory/data' -m immediate -w stop" >/dev/null
    exit 0
fi

mkdir -p "$directory"
if [ "$(id -u)" -eq 0 ]; then
    chown postgres "$directory"
    chmod 755 "$directory"
fi
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
as_server "'$bin/initdb' -D '$directory/data' -U yiqiao -A trust -E UTF8 --locale=C.UTF-8" >/dev/null
as_server "'$bin/pg_ctl' -D '$directory/data' -w -l '$directory/log' \
    -o '-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=200 -c fsync=off -c full_page_writes=off' start" >/dev/null
echo "postgresql+psycopg://yiqiao@127.0.0.1:$port/postgres"
