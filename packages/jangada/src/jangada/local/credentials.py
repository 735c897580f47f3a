"""Whom PostgreSQL runs as when the runner is root, which it refuses to run as.

A user namespace is tried first: PostgreSQL then sees itself as an ordinary user while the kernel,
and so every file, still knows it as root, without any of root's powers. Where namespaces are
forbidden (many containers) it becomes an existing unprivileged account that keeps the one
capability of reaching files below root's private folders.
"""

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from jangada.local.errors import PrivilegesUnsuitable, ServerFailed
from jangada.local.process import OWN, Command, Credentials, plain_environ, run

PREFERRED = ("postgres", "nobody", "daemon")

AS_ROOT = (
    "PostgreSQL does not run as root, and no way around that works here. Run as an ordinary "
    "user, or set JANGADA_DATABASE__URL to a server of your own."
)
AS_A_USER = (
    "PostgreSQL's programs cannot be used by this user. Install them where this user may read, or "
    "set JANGADA_DATABASE__URL to a server of your own."
)


def _account() -> pwd.struct_passwd:
    accounts = [entry for entry in pwd.getpwall() if entry.pw_uid != 0]
    for name in PREFERRED:
        for entry in accounts:
            if entry.pw_name == name:
                return entry
    if not accounts:
        raise PrivilegesUnsuitable(
            "PostgreSQL does not run as root and there is no other account on this machine."
        )
    return accounts[0]


def candidates() -> Iterator[Credentials]:
    """Ways to run PostgreSQL here, best first."""
    if os.geteuid() != 0:
        yield OWN
        return
    account = _account()
    if hasattr(os, "unshare"):
        yield Credentials("namespace", account.pw_uid, account.pw_gid)
    yield Credentials("account", account.pw_uid, account.pw_gid)


def choose(initdb: Path, folder: Path) -> Credentials:
    """The first way in which PostgreSQL runs, finds its own files and reaches the folder."""
    faults = []
    for credentials in candidates():
        try:
            run(
                Command(
                    # It looks for the server and its files, prints where they are, and ends.
                    argv=[str(initdb), "--show", "-D", str(folder)],
                    environ=plain_environ(),
                    folder=folder,
                    credentials=credentials,
                )
            )
        except (ServerFailed, OSError) as error:
            faults.append(f"{credentials.kind}: {error}")
        else:
            return credentials
    raise PrivilegesUnsuitable("\n".join([AS_ROOT if os.geteuid() == 0 else AS_A_USER, *faults]))


def own(folder: Path, credentials: Credentials) -> None:
    """Give a tree to whom the server runs as. Only root changes owners; links are not followed."""
    if os.geteuid() != 0:
        return
    uid = credentials.uid if credentials.kind == "account" else os.geteuid()
    gid = credentials.gid if credentials.kind == "account" else os.getegid()
    for _, folders, files, descriptor in os.fwalk(folder):
        for name in (".", *folders, *files):
            if os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_uid != uid:
                os.chown(name, uid, gid, dir_fd=descriptor, follow_symlinks=False)
