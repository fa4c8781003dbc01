#!/usr/bin/env bash
# A real PostgreSQL with a real pgBackRest, for heavy_pgbackrest.rs and restore/real.rs. Each command starts what it needs and
# stops it again; the repository stays in $root/repo.
#
#   lab.sh ROOT make                    a stanza with three sets and rows after them; prints times. With PASSWORD
#                                       in the environment the superuser has one
#   lab.sh ROOT info                    what pgBackRest says itself, as JSON
#   lab.sh ROOT restore NAME OPTIONS    restores as the operator does and prints the rows
#   lab.sh ROOT serve PORT              restores to the end and answers at 127.0.0.1:PORT by TLS, with $root/server.crt
#                                       and server.key, until standard input ends; prints `ready`
#   lab.sh ROOT promote                 a second timeline: restores with archiving on, and writes
#   lab.sh ROOT upgrade                 an empty cluster takes over the stanza
set -euo pipefail

root=$1
command=$2
shift 2

bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
export PATH=$bin:$PATH PGBACKREST_CONFIG=$root/pgbackrest.conf PGHOST=$root PGDATABASE=postgres PGTZ=UTC

sql() { psql -qAtX -v ON_ERROR_STOP=1 -c "$1"; }

start() { # directory
    pg_ctl -D "$1" -w -t 60 -l "$root/log/postgres.log" start >/dev/null || {
        cat "$root/log/postgres.log" >&2
        exit 1
    }
}

stop() { pg_ctl -D "$1" -w -m fast stop >/dev/null; }

recovered() {
    until [ "$(sql 'select pg_is_in_recovery()')" = f ]; do
        sleep 0.1
    done
}

init() {
    initdb -D "$root/data" -A trust --no-sync >/dev/null
    cat >>"$root/data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$root'
archive_mode = on
archive_command = 'pgbackrest --stanza=db archive-push %p'
restore_command = ''
track_commit_timestamp = on
fsync = off
CONF
}

# Ends the current segment and waits until it is in the repository.
archive() { pgbackrest --stanza=db check; }

now() { echo "$1=$(sql "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")"; }

case $command in
make)
    mkdir -p "$root"/{log,lock,repo,spool}
    cat >"$PGBACKREST_CONFIG" <<CONF
[global]
repo1-path=$root/repo
repo1-retention-full=9
log-path=$root/log
lock-path=$root/lock
spool-path=$root/spool
log-level-stderr=error
log-level-console=error
compress-type=lz4
repo1-bundle=y
start-fast=y

[db]
pg1-path=$root/data
pg1-socket-path=$root
pg1-user=$(id -un)
CONF
    init
    start "$root/data"
    sql 'create table rows (name text)'
    [ -z "${PASSWORD:-}" ] || sql "alter role postgres password '$PASSWORD'"
    pgbackrest --stanza=db stanza-create
    pgbackrest --stanza=db --type=full --annotation=percona.com/backup-name=first backup
    sql "insert into rows values ('before the last set')"
    pgbackrest --stanza=db --type=diff backup
    pgbackrest --stanza=db --type=incr backup
    sql "insert into rows values ('early')"
    archive
    sleep 0.5
    now between
    sleep 0.5
    sql "insert into rows values ('late')"
    archive
    stop "$root/data"
    ;;
info)
    pgbackrest --stanza=db --output=json info
    ;;
restore)
    name=$1
    # The operator's own line, and what it adds: percona's internal/pgbackrest/config.go.
    opts="$2 --stanza=db --pg1-path=$root/$name --repo=1 --delta"
    case $opts in *--target*) opts="$opts --target-action=promote" ;; esac
    install -d -m 700 "$root/$name"
    bash -c "pgbackrest restore $opts --archive-mode=off"
    start "$root/$name"
    # Replay pauses where `immediate` ends; the operator resumes it.
    until [ "$(sql 'select pg_is_in_recovery()')" = f ]; do
        [ "$(sql 'select pg_is_in_recovery() and pg_is_wal_replay_paused()')" != t ] || sql 'select pg_wal_replay_resume()' >/dev/null || true
        sleep 0.1
    done
    sql 'select name from rows order by name'
    stop "$root/$name"
    ;;
serve)
    port=$1
    install -d -m 700 "$root/served"
    pgbackrest --stanza=db --pg1-path="$root/served" --delta restore --archive-mode=off
    cat >>"$root/served/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
port = $port
ssl = on
ssl_cert_file = '$root/server.crt'
ssl_key_file = '$root/server.key'
CONF
    cat >"$root/served/pg_hba.conf" <<CONF
local all all trust
hostssl all postgres 127.0.0.1/32 scram-sha-256
CONF
    export PGPORT=$port
    start "$root/served"
    recovered
    echo ready
    cat >/dev/null
    stop "$root/served"
    ;;
promote)
    mv "$root/data" "$root/old"
    pgbackrest --stanza=db restore
    start "$root/data"
    recovered
    sql "insert into rows values ('promoted')"
    archive
    stop "$root/data"
    ;;
upgrade)
    mv "$root/data" "$root/promoted"
    init
    start "$root/data"
    pgbackrest --stanza=db stanza-upgrade
    pgbackrest --stanza=db --type=full backup
    stop "$root/data"
    ;;
*)
    echo "unknown command $command" >&2
    exit 2
    ;;
esac
