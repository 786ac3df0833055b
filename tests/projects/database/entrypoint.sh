#!/bin/sh
set -e
if [ ! -s "$DB_DATA/VERSION" ]; then
    echo 1 > "$DB_DATA/VERSION"
    chown db:db "$DB_DATA/VERSION"
fi
if [ "$1" = serve ]; then
    exec su db -c 'echo serving as $(id -un), version $(cat "$DB_DATA/VERSION"), $(cat "$DB_DATA/seed")'
fi
exec "$@"
