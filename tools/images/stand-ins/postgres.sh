#!/bin/bash
# What the official image's entrypoint does of what the chart's `dev` mode asks of it: a new cluster
# gets POSTGRES_PASSWORD and whatever lies in /docker-entrypoint-initdb.d; then the server runs.
set -eu
: "${PGDATA:=/var/lib/postgresql/data}"
export PATH=$PATH:/usr/lib/postgresql/17/bin
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    mkdir -p "$PGDATA"
    chmod 700 "$PGDATA"
    # initdb wants its user to have a name, and the pod's has none.
    NSS_WRAPPER_PASSWD=$(mktemp) NSS_WRAPPER_GROUP=/etc/group
    echo "postgres:x:$(id -u):$(id -g)::$PGDATA:/bin/false" > "$NSS_WRAPPER_PASSWD"
    export NSS_WRAPPER_PASSWD NSS_WRAPPER_GROUP
    LD_PRELOAD=$(echo /usr/lib/*/libnss_wrapper.so) \
        initdb --username=postgres --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD") \
            --auth-local=trust --auth-host=scram-sha-256 "$PGDATA"
    echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
    pg_ctl --wait -o "-c listen_addresses=''" start
    for script in /docker-entrypoint-initdb.d/*; do
        case $script in
        *.sh) . "$script" ;;
        *.sql) psql --set=ON_ERROR_STOP=1 --username=postgres --file="$script" ;;
        esac
    done
    pg_ctl --wait --mode=fast stop
fi
exec postgres -c listen_addresses='*' -c unix_socket_directories=/var/run/postgresql "$@"
