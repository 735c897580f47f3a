"""One PostgreSQL and one Valkey for all contestants, and how much memory these take."""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psutil
import psycopg
import redis

from jangada.local.postgres import DATABASE, EmbeddedPostgres
from jangada.local.valkey import EmbeddedValkey
from queues.adapter import POSTGRES, VALKEY
from queues.contestants import ROOT, Contestant

ENTRY_POINT = "[jangada.handlers]\nbench = queues.adapters.platform_jobs\n"
METADATA = "Metadata-Version: 2.1\nName: jangada-bench\nVersion: 1\n"


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the servers are, and the folder for what belongs to this run."""

    folder: Path
    postgres: EmbeddedPostgres
    valkey: EmbeddedValkey

    def environment(self, contestant: Contestant) -> dict[str, str]:
        """What the contestant's processes find in their environment."""
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith("JANGADA_")
        }
        search = [str(ROOT / "bench"), *([str(self.application)] if not contestant.rival else [])]
        return {
            **inherited,
            **(self._platform(contestant) if contestant.rival is None else {}),
            "PYTHONPATH": os.pathsep.join(search),
            "PATH": f"{contestant.python.parent}{os.pathsep}{os.environ['PATH']}",
            VALKEY: self.valkey.url,
            POSTGRES: self._database_url(contestant),
        }

    def _database_url(self, contestant: Contestant) -> str:
        """Ours is prepared as the superuser, because row-level security binds the role."""
        if contestant.database == DATABASE:
            place = urlsplit(self.postgres.url).path
            return urlunsplit(urlsplit(self.postgres.admin_url)._replace(path=place))
        return self.postgres.database_url(contestant.database or DATABASE)

    def _platform(self, contestant: Contestant) -> dict[str, str]:
        own = {f"JANGADA_{key}": str(value) for key, value in contestant.settings.items()}
        return {
            "JANGADA_ENVIRONMENT": "development",
            "JANGADA_DATABASE__URL": self.postgres.url,
            "JANGADA_VALKEY__URL": self.valkey.url,
            "JANGADA_AUTH__MASTER_KEY": MASTER_KEY,
            "JANGADA_STORAGE__URL": f"file://{self.folder}",
            "JANGADA_TELEMETRY__LOG_LEVEL": "WARNING",
            "JANGADA_TELEMETRY__LOG_FORMAT": "json",
            "JANGADA_WORKER__QUEUES": "default",
            "JANGADA_WORKER__PROCESSES": "2",
            **own,
        }

    @property
    def application(self) -> Path:
        return self.folder / "application"

    def install_application(self) -> None:
        """Our handlers, as an installed distribution has them."""
        metadata = self.application / "jangada_bench-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(METADATA, encoding="utf-8")
        (metadata / "entry_points.txt").write_text(ENTRY_POINT, encoding="utf-8")

    def effects(self, contestant: Contestant, indexes: range) -> list[int]:
        """The jobs of the kind `insert` whose rows are there, with repetitions."""
        with psycopg.connect(self._database_url(contestant)) as connection:
            found = connection.execute(
                "SELECT job FROM effects WHERE job >= %s AND job < %s",
                [indexes.start, indexes.stop],
            )
            return [row[0] for row in found]

    def settle(self) -> None:
        """Nothing in Valkey, and nothing left to write of what was in PostgreSQL."""
        with redis.Redis.from_url(self.valkey.url) as client:
            client.flushall()
        with psycopg.connect(self.postgres.admin_url, autocommit=True) as connection:
            connection.execute("CHECKPOINT")

    def valkey_memory(self) -> int:
        """What the data takes, in bytes, by Valkey's own account."""
        with redis.Redis.from_url(self.valkey.url) as client:
            return int(client.info("memory")["used_memory_dataset"])

    def postgres_memory(self) -> int:
        """All of PostgreSQL's processes, shared pages counted once, in bytes."""
        return proportional_memory(_family(self.postgres.child.pid))

    def processor_seconds(self) -> tuple[float, float]:
        """What PostgreSQL and Valkey have used so far."""
        postgres, valkey = (each.child.pid for each in (self.postgres, self.valkey))
        return processor_seconds(_family(postgres)), processor_seconds(_family(valkey))


CONNECTIONS = 200
MASTER_KEY = secrets.token_hex(32)


def _family(pid: int) -> list[psutil.Process]:
    head = psutil.Process(pid)
    return [head, *head.children(recursive=True)]


def processor_seconds(processes: list[psutil.Process]) -> float:
    """What they have used so far, with all children that they have waited for."""
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            used = process.cpu_times()
            total += used.user + used.system + used.children_user + used.children_system
    return total


def proportional_memory(processes: list[psutil.Process]) -> int:
    """Memory of processes, each shared page divided among those that share it (PSS)."""
    total = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
    return total


@contextmanager
def open_servers() -> Iterator[Servers]:
    # Beside the sources and not under /tmp, which may be memory: flushing must reach a disk.
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=ROOT) as name:
        folder = Path(name)
        with (
            EmbeddedPostgres(folder / "postgres", max_connections=CONNECTIONS) as postgres,
            EmbeddedValkey(folder / "valkey") as valkey,
        ):
            for database in ("procrastinate", "bare"):
                postgres.create_database(database)
            servers = Servers(folder, postgres, valkey)
            servers.install_application()
            yield servers
