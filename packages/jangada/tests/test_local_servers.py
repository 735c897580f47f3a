"""The embedded servers: safe by default, quick, and the same data at the next start."""

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import make_url

from jangada.local.binaries import postgres_program
from jangada.local.errors import DataUnusable, FolderInUse, FolderUnusable, ServerFailed
from jangada.local.postgres import EmbeddedPostgres
from jangada.local.valkey import EmbeddedValkey


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "server"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    folder = tmp_path_factory.mktemp("pg")
    with EmbeddedPostgres(folder, durable=False) as server:
        yield server


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    folder = tmp_path_factory.mktemp("vk")
    with EmbeddedValkey(folder, durable=False) as server:
        yield server


def listens_on_network(pid: int) -> bool:
    return bool(psutil.Process(pid).net_connections(kind="inet"))


def closed_to_others(folder: Path) -> bool:
    return all(
        stat.S_IMODE(path.lstat().st_mode) & 0o077 == 0
        for path in folder.rglob("*")
        if path.is_file()
    )


def test_the_role_is_an_ordinary_one(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.url) as connection:
        row = connection.execute(
            "SELECT current_user, current_database(), rolsuper, rolbypassrls, rolcreatedb, "
            "rolcreaterole, rolreplication FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
    assert row == ("jangada", "jangada", False, False, False, False, False)


@pytest.mark.parametrize("role", ["jangada", "postgres"])
@pytest.mark.parametrize("password", ["", "wrong"])
def test_nobody_gets_in_without_the_password(
    server: EmbeddedPostgres, role: str, password: str
) -> None:
    login = psycopg.conninfo.make_conninfo(server.url, user=role, password=password)
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(login)


def test_passwords_are_kept_as_scram_verifiers(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.admin_url) as connection:
        rows = connection.execute(
            "SELECT rolpassword FROM pg_authid WHERE rolcanlogin AND rolpassword IS NOT NULL"
        ).fetchall()
    verifiers = [password.split("$")[:2] for (password,) in rows]
    assert [(kind, salted[:2]) for kind, salted in verifiers] == [("SCRAM-SHA-256", "1:")] * 2


def test_postgresql_listens_on_its_socket_only(server: EmbeddedPostgres) -> None:
    assert not listens_on_network(server.child.pid)
    assert stat.S_IMODE((server.data.parent / "run").stat().st_mode) == 0o700


def test_every_file_of_postgresql_is_private(server: EmbeddedPostgres) -> None:
    assert closed_to_others(server.data.parent)


def test_no_secret_is_on_a_command_line_or_in_the_environment(
    server: EmbeddedPostgres, valkey: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    passwords = [str(make_url(server.url).password), valkey.url.split(":")[2].split("@")[0]]
    for pid in (server.child.pid, valkey.child.pid):
        process = psutil.Process(pid)
        seen = " ".join(process.cmdline()) + str(process.environ())
        assert not any(password in seen for password in passwords)


def test_settings_of_other_servers_do_not_reach_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGDATA", "/nonexistent")
    monkeypatch.setenv("PGPORT", "1")
    with EmbeddedPostgres(folder, durable=False) as server, psycopg.connect(server.url) as client:
        assert client.execute("SELECT 1").fetchone() == (1,)


def test_sqlalchemy_understands_the_url(server: EmbeddedPostgres) -> None:
    from sqlalchemy import create_engine, text  # noqa: PLC0415 - this test alone

    url = make_url(server.url).set(drivername="postgresql+psycopg")
    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT current_user")) == "jangada"
    engine.dispose()


def test_an_error_leaves_no_data_in_the_log(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.url) as connection, pytest.raises(psycopg.Error):
        connection.execute("SELECT 'canary@example.com'::uuid")
    with psycopg.connect(server.url) as connection:
        connection.execute("CREATE TEMP TABLE t (email text PRIMARY KEY)")
        with pytest.raises(psycopg.errors.UniqueViolation, match="canary"):
            connection.execute("INSERT INTO t VALUES ('canary@x.com'), ('canary@x.com')")
    assert "canary" not in server.log.read_text()


def test_a_database_is_a_copy_of_its_template(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.create_database("template")) as connection:
        connection.execute("CREATE TABLE t AS SELECT 42 AS answer")
    with psycopg.connect(server.create_database("copy", template="template")) as connection:
        assert connection.execute("SELECT answer FROM t").fetchone() == (42,)
        server.drop_database("copy")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_data_is_there_at_the_second_start(folder: Path) -> None:
    with EmbeddedPostgres(folder) as server, psycopg.connect(server.url) as connection:
        connection.execute("CREATE TABLE t AS SELECT 42 AS answer")
    with EmbeddedPostgres(folder) as server, psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT answer FROM t").fetchone() == (42,)


def test_a_lost_role_password_is_made_anew(folder: Path) -> None:
    with EmbeddedPostgres(folder, durable=False):
        (folder / "password").unlink()
    with EmbeddedPostgres(folder, durable=False) as server, psycopg.connect(server.url) as client:
        assert client.execute("SELECT 1").fetchone() == (1,)


def test_a_lost_superuser_password_is_said(folder: Path) -> None:
    with EmbeddedPostgres(folder, durable=False):
        pass
    (folder / "superuser-password").unlink()
    with pytest.raises(ServerFailed, match="superuser-password"):
        EmbeddedPostgres(folder, durable=False).start()


def test_half_a_cluster_is_made_anew(folder: Path) -> None:
    """A kill in the middle of initdb leaves its draft."""
    draft = folder / "data.partial"
    draft.mkdir(parents=True, mode=0o700)
    folder.chmod(0o700)
    (draft / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(folder, durable=False) as server, psycopg.connect(server.url) as client:
        assert client.execute("SELECT 1").fetchone() == (1,)
    assert not draft.exists()


@pytest.mark.parametrize("version", ["16", None])
def test_data_of_another_version_is_refused_and_kept(folder: Path, version: str | None) -> None:
    (folder / "data").mkdir(parents=True)
    folder.chmod(0o700)
    if version:
        (folder / "data" / "PG_VERSION").write_text(f"{version}\n")
    with pytest.raises(DataUnusable, match=version or "unknown"):
        EmbeddedPostgres(folder, durable=False).start()
    assert sorted(path.name for path in (folder / "data").iterdir()) == ["PG_VERSION"] * bool(
        version
    )


def test_a_server_that_cannot_start_says_why(folder: Path) -> None:
    with EmbeddedPostgres(folder, durable=False):
        pass
    (folder / "data" / "postgresql.conf").write_text("no_such_setting = 1\n")
    server = EmbeddedPostgres(folder, durable=False)
    with pytest.raises(ServerFailed, match="no_such_setting"):
        server.start()
    (folder / "data" / "postgresql.conf").write_text("")
    with server, psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_second_server_in_the_same_folder_is_refused(server: EmbeddedPostgres) -> None:
    second = EmbeddedPostgres(server.data.parent, durable=False)
    with pytest.raises(FolderInUse, match=str(os.getpid())):
        second.start()
    second.stop()
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_folder_open_to_others_is_refused_unchanged(folder: Path) -> None:
    folder.mkdir(mode=0o755)
    with pytest.raises(FolderUnusable, match="chmod 700"):
        EmbeddedValkey(folder).start()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert not any(folder.iterdir())


def test_stopping_leaves_no_process(folder: Path) -> None:
    with EmbeddedPostgres(folder, durable=False) as server:
        family = [psutil.Process(server.child.pid)]
        family += family[0].children(recursive=True)
    assert len(family) > 1
    assert not any(process.is_running() for process in family)
    server.stop()


def test_the_programs_of_postgresql_are_at_hand() -> None:
    dump = postgres_program("pg_dump")
    answer = subprocess.run(  # noqa: S603 - a program of ours
        [dump, "--version"], capture_output=True, text=True, check=True
    )
    assert "18." in answer.stdout


def test_valkey_never_evicts_and_logs_every_write(valkey: EmbeddedValkey) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}


def test_valkey_asks_for_its_password(valkey: EmbeddedValkey) -> None:
    with (
        redis.Redis(unix_socket_path=str(valkey.socket), retry=Retry(NoBackoff(), 0)) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


def test_valkey_listens_on_its_socket_only(valkey: EmbeddedValkey) -> None:
    assert not listens_on_network(valkey.child.pid)
    assert stat.S_IMODE(valkey.socket.stat().st_mode) == 0o700
    assert closed_to_others(valkey.data.parent)


def test_valkey_keeps_its_data(folder: Path) -> None:
    with EmbeddedValkey(folder) as server, redis.Redis.from_url(server.url) as client:
        client.set("answer", "42")
    with EmbeddedValkey(folder) as server, redis.Redis.from_url(server.url) as client:
        assert client.get("answer") == b"42"


def test_a_damaged_append_only_file_is_set_aside(folder: Path) -> None:
    with EmbeddedValkey(folder) as server, redis.Redis.from_url(server.url) as client:
        client.set("answer", "42")
    (log,) = (folder / "data" / "appendonlydir").glob("*.incr.aof")
    log.write_bytes(b"this is no append-only file\n" * 100)
    with EmbeddedValkey(folder) as server, redis.Redis.from_url(server.url) as client:
        assert client.dbsize() == 0
    assert len(list(folder.glob("data.damaged-*"))) == 1


def test_a_valkey_that_cannot_start_says_why(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / "password").write_text("two words\n")
    with pytest.raises(ServerFailed, match=r"valkey\.conf|wrong number of arguments"):
        EmbeddedValkey(folder).start()


@pytest.mark.parametrize("name", ["x" * 120, "with, comma and space"])
def test_an_awkward_path_gets_a_temporary_folder_for_sockets(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    with (
        EmbeddedPostgres(folder / "postgres", durable=False) as server,
        EmbeddedValkey(folder / "valkey", durable=False) as valkey,
    ):
        sockets = [Path((d / "sockets").read_text().strip()) for d in folder.iterdir()]
        assert all(stat.S_IMODE(s.stat().st_mode) == 0o700 for s in sockets)
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        with redis.Redis.from_url(valkey.url) as client:
            assert client.ping()
    assert not any(path.exists() for path in sockets)
