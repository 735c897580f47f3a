#!/bin/sh
# Runs a command with what the building machine's pip is told: index, proxy, authorities. It comes as
# secrets of the build, so neither a layer nor the history of an image holds any of it.
set -eu
if [ -e /run/secrets/packages ]; then
    set -a
    . /run/secrets/packages
    set +a
fi
exec "$@"
