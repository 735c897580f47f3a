#!/bin/sh
# Makes a stand-in for python:3.13-slim out of Debian's own packages, for machines that reach no
# registry of images: base.sh ARCHIVE.tar. Needs root and mmdebstrap.
#
# As in the original, Python is /usr/local/bin/python, has a pip that isn't Debian's, and no compiled
# modules. Packages come from wherever apt is configured to get those of Debian.
set -eu
wheels=/usr/share/python-wheels
exec mmdebstrap --quiet --variant=minbase \
    --include=ca-certificates,netbase,python3.13,python3-pip-whl,tzdata \
    --aptopt='Acquire::Languages "none"' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='rm -f "$1"/usr/lib/python3.13/EXTERNALLY-MANAGED' \
    --customize-hook='for name in python python3 python3.13; do
        ln -sf /usr/bin/python3.13 "$1/usr/local/bin/$name"; done' \
    --customize-hook="chroot \"\$1\" sh -c 'PYTHONPATH=\$(echo $wheels/pip-*.whl) python3 -m pip \
        install --quiet --no-index --no-compile --root-user-action ignore \
        --find-links $wheels pip'" \
    --customize-hook="rm -rf \"\$1\"$wheels" \
    --customize-hook='find "$1" -xdev -name __pycache__ -prune -exec rm -r {} +' \
    trixie "$1"
