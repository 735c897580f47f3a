"""Migrations as a cluster runs them: several at once, and one that can't get a table's lock."""

import secrets
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from cluster.api import Object
from node import traffic
from node.layers import with_files
from node.release import READY, REGISTRY, VERSIONS, Release, ReleaseFailed, is_complete
from node.traffic import Traffic

from jangada.local.process import wait_until
from jangada.migrations.revisions import head

pytestmark = [pytest.mark.pods, pytest.mark.timeout(1800)]

LATER = "0.2.0"
NEXT = f"{int(head()) + 1:04}"
REVISION = f"""
from alembic import op

revision, down_revision, branch_labels, depends_on = "{NEXT}", "{head()}", None, None


def upgrade() -> None:
    op.execute("ALTER TABLE contacts ADD COLUMN probed boolean")
"""
BACK = f"UPDATE alembic_version SET version_num = '{head()}'"  # noqa: S608 - our own number
SLEEPS = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%' AND state = 'active'"
FOLDER = "opt/jangada/lib/python3.13/site-packages/jangada/migrations/versions"

type Say = Callable[[str], None]


@pytest.fixture
def later(shop: Release, archives: Mapping[str, Path], tmp_path: Path) -> Iterator[str]:
    """A release of the API that needs one revision more, which is undone by hand at the end."""
    image, archive = f"{REGISTRY}/api:{LATER}", tmp_path / "api.tar"
    files = {f"{FOLDER}/{NEXT}_pre_probe.py": REVISION}
    with_files(archives["api"], files, archive, name=image)
    shop.node.load(archive, image)
    yield LATER
    shop.sql("ALTER TABLE contacts DROP COLUMN IF EXISTS probed")
    shop.sql(BACK)
    shop.apply(VERSIONS[0])


def migrate_job(shop: Release, name: str, url: str) -> Object:
    """The release's own Job, for another database."""
    found = shop.api.list("jobs", selector="app.kubernetes.io/component=migrate")[0]
    spec = {each: found["spec"][each] for each in ("backoffLimit", "template")}
    pod = spec["template"]
    for label in ("controller-uid", "job-name"):
        pod["metadata"]["labels"].pop(label, None)
        pod["metadata"]["labels"].pop(f"batch.kubernetes.io/{label}", None)
    (container,) = pod["spec"]["containers"]
    others = [each for each in container["env"] if each["name"] != "JANGADA_DATABASE__URL"]
    container["env"] = [*others, {"name": "JANGADA_DATABASE__URL", "value": url}]
    head = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}}
    return {**head, "spec": spec}


def test_three_at_once_migrate_once(shop: Release, say: Say) -> None:
    database = f"three_{secrets.token_hex(3)}"
    shop.sql(f"CREATE DATABASE {database} OWNER jangada")
    url = shop.secret("database-url").rpartition("/")[0] + f"/{database}"
    names = [f"{database.replace('_', '-')}-{number}" for number in range(3)]
    for name in names:
        shop.api.create(migrate_job(shop, name, url))
    for name in names:
        shop.api.wait_for("jobs", lambda job: job and is_complete(job), name=name, within=READY)
    logs = [shop.kubectl("logs", f"job/{name}") for name in names]
    assert sum("0001" in log for log in logs) == 1, logs
    assert all(f"The schema is at {head()}." in log for log in logs)
    failed = [shop.api.get("jobs", name)["status"].get("failed", 0) for name in names]
    assert failed == [0, 0, 0]
    shop.api.delete_all("jobs", selector="!app.kubernetes.io/component")
    say("three migrations of one empty database at once: one migrated, all succeeded")


@contextmanager
def held(shop: Release, table: str) -> Iterator[int]:
    """Somebody's open transaction that has read a table; answers the process."""
    with ThreadPoolExecutor(1) as pool:
        ends = pool.submit(
            shop.sql, f"BEGIN; LOCK {table} IN ACCESS SHARE MODE; SELECT pg_sleep(3600)"
        )
        assert wait_until(lambda: bool(shop.sql(SLEEPS)), READY)
        pid = int(shop.sql(SLEEPS))
        try:
            yield pid
        finally:
            shop.sql(f"SELECT pg_terminate_backend({pid})")
        assert isinstance(ends.exception(), ReleaseFailed)


def test_a_migration_that_waits_in_vain_stops_the_rollout(
    shop: Release, later: str, seen: Traffic, say: Say
) -> None:
    """Pods of before serve meanwhile; helm goes back; with the lock free it goes through.

    Requests for that table queue behind each try for up to a second: on a machine that is as busy
    as this, some may be told that all connections are in use. Nothing else goes wrong.
    """
    with seen.at_rate(), ThreadPoolExecutor(1) as pool:
        with held(shop, "contacts") as pid:
            upgrade = pool.submit(
                shop.upgrade_api, later, "--timeout=120s", "--rollback-on-failure"
            )
            holder = f"Table contacts is held by process {pid} of role postgres"
            assert wait_until(lambda: holder in told(shop), READY), told(shop)
            assert isinstance(upgrade.exception(READY), ReleaseFailed)
            shop.wait_ready()
        shop.wait_pods(
            "api", lambda pods: set(map(image, pods)) == {f"{REGISTRY}/api:{VERSIONS[0]}"}
        )
        assert shop.sql("SELECT version_num FROM alembic_version") == head()
        seen.wait_served()
        during = list(seen.answers)
        shop.upgrade_api(later, f"--timeout={READY:.0f}s")
        assert shop.sql("SELECT version_num FROM alembic_version") == NEXT
    say(f"a migration that got no lock: {traffic.summary(during)}")
    assert [each for each in traffic.troubles(seen.answers) if "database.busy" not in each] == []


def image(pod: Object) -> str:
    return str(pod["spec"]["containers"][0]["image"])


def told(shop: Release) -> str:
    """What the migration's pods have said."""
    try:
        selector = "--selector=app.kubernetes.io/component=migrate"
        return shop.kubectl("logs", selector, "--tail=-1", "--all-containers")
    except ReleaseFailed:
        return ""  # a pod that doesn't run yet
