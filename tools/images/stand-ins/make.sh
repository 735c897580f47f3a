#!/bin/sh
# Makes the files of the stand-ins for the images of PostgreSQL and Valkey out of Debian's packages,
# for a node that reaches no registry of images: make.sh ARCHIVE.tar. Needs root and mmdebstrap.
# They are for tests on the machine that made them; README.md says what they aren't.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
exec mmdebstrap --quiet --variant=minbase \
    --include=libnss-wrapper,postgresql-17,valkey-server \
    --aptopt='Acquire::Languages "none"' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/lib/*/libLLVM*' \
    --dpkgopt='path-exclude=/usr/lib/postgresql/*/lib/llvmjit*' \
    --dpkgopt='path-exclude=/usr/lib/postgresql/*/lib/bitcode/*' \
    --customize-hook="install -m 755 '$here/postgres.sh' \"\$1/usr/local/bin/docker-entrypoint.sh\"" \
    --customize-hook='mkdir -p "$1/docker-entrypoint-initdb.d" "$1/data"' \
    --customize-hook='rm -rf "$1"/var/lib/postgresql/17' \
    trixie "$1"
