#!/bin/sh
# Start a private MariaDB for the tests and print its URL.
#
#   tests/start-mariadb.sh DIR      start a server whose data lies below DIR; prints mysql+pymysql://...
#   tests/stop-mariadb.sh DIR       stop it again
#
# The server listens on 127.0.0.1 on a free port, takes connections of the user "yiqiao" without a password, and keeps nothing worth
# keeping (it does not wait for the disk). As root it runs as the system user "mysql".
set -eu

[ $# -eq 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
directory=$1
name=$(basename "$0" .sh)

if [ "$name" = stop-mariadb ]; then
    if [ -f "$directory/pid" ]; then
        process=$(cat "$directory/pid")
        kill "$process" 2>/dev/null || true
        for _ in $(seq 100); do
            kill -0 "$process" 2>/dev/null || exit 0
            sleep 0.1
        done
        kill -9 "$process" 2>/dev/null || true
    fi
    exit 0
fi

for program in mariadbd mariadb-install-db mariadb-admin; do
    if ! PATH="$PATH:/usr/sbin" command -v "$program" >/dev/null 2>&1; then
        echo "MariaDB is not installed; on Debian: apt-get install mariadb-server" >&2
        exit 1
    fi
done
PATH="$PATH:/usr/sbin"

mkdir -p "$directory"
user=
if [ "$(id -u)" -eq 0 ]; then
    user=--user=mysql
    chown mysql "$directory"
    chmod 755 "$directory"
fi
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mariadb-install-db --no-defaults $user --datadir="$directory/data" --auth-root-authentication-method=normal \
    --skip-test-db >"$directory/install.log" 2>&1 || { cat "$directory/install.log" >&2; exit 1; }
cat >"$directory/init.sql" <<'SQL'
CREATE USER IF NOT EXISTS 'yiqiao'@'localhost' IDENTIFIED BY '';
GRANT ALL PRIVILEGES ON *.* TO 'yiqiao'@'localhost' WITH GRANT OPTION;
SQL
chmod 644 "$directory/init.sql"
setsid mariadbd --no-defaults $user --datadir="$directory/data" --socket="$directory/socket" --bind-address=127.0.0.1 --port="$port" \
    --init-file="$directory/init.sql" --pid-file="$directory/pid" --log-error="$directory/log" \
    --character-set-server=utf8mb4 --collation-server=utf8mb4_bin --innodb-flush-log-at-trx-commit=0 --skip-log-bin \
    --innodb-buffer-pool-size=64M --performance-schema=OFF >/dev/null 2>&1 </dev/null &
for _ in $(seq 300); do
    if mariadb-admin --no-defaults --protocol=tcp -h 127.0.0.1 -P "$port" -u yiqiao ping >/dev/null 2>&1; then
        echo "mysql+pymysql://yiqiao@127.0.0.1:$port/mysql?charset=utf8mb4"
        exit 0
    fi
    sleep 0.1
done
cat "$directory/log" >&2
exit 1
