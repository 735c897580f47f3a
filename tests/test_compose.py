"""`compose.yaml` is what Docker Compose understands, and names what there is."""

import re
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import images
import pytest
import yaml
from toolchain import ROOT

from jangada.config import known_keys

FILES = ("compose.yaml", "compose.dev.yaml")
COMPOSE: Mapping[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
SERVICES: Mapping[str, Mapping[str, Any]] = COMPOSE["services"]
OURS = sorted(name for name, service in SERVICES.items() if "build" in service)
KEPT_UP = sorted(name for name, service in SERVICES.items() if "restart" in service)


def needs(service: str) -> Mapping[str, str]:
    """What a service waits for, and until when."""
    found = SERVICES[service].get("depends_on", {})
    return {name: each["condition"] for name, each in found.items()}


def settings() -> Iterator[tuple[str, str]]:
    for name in FILES:
        for service in yaml.safe_load((ROOT / name).read_text("utf-8"))["services"].values():
            yield from service.get("environment", {}).items()


@pytest.mark.parametrize("name", FILES)
def test_it_follows_the_specification(name: str) -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*check, ROOT / name], capture_output=True, text=True, check=False)  # noqa: S603 - a tool of ours
    assert done.returncode == 0, done.stdout


def test_every_setting_is_one() -> None:
    ours = {name.removesuffix("_FILE") for name, _ in settings() if name.startswith("JANGADA_")}
    assert len(ours) > 5
    assert ours - {*known_keys()} == set()


def test_no_secret_is_written_down() -> None:
    """They come from files that the first start makes."""
    secret = [
        (name, value)
        for name, value in settings()
        if re.search("PASSWORD|MASTER_KEY|DATABASE", name)
    ]
    assert len(secret) >= 3
    assert [name for name, _ in secret if not name.endswith("_FILE")] == []
    assert [value for _, value in secret if not value.startswith("/run/")] == []


@pytest.mark.parametrize("service", OURS)
def test_our_programs_may_do_nothing_but_their_work(service: str) -> None:
    told = SERVICES[service]
    assert told["read_only"]
    assert told["cap_drop"] == ["ALL"]
    assert told["security_opt"] == ["no-new-privileges:true"]
    assert told["build"]["args"]["SERVICE"] in images.SERVICES
    assert told["build"]["dockerfile"] == "services/Dockerfile"


@pytest.mark.parametrize("service", SERVICES)
def test_nothing_is_run_by_a_shell_of_ours(service: str) -> None:
    told = SERVICES[service]
    commands = [told[key] for key in ("command", "entrypoint") if key in told]
    health = told["healthcheck"]["test"] if "healthcheck" in told else ["CMD"]
    assert all(isinstance(command, list) for command in commands)
    assert health[0] == "CMD"


def test_images_of_others_have_a_version() -> None:
    others = [service["image"] for service in SERVICES.values() if "build" not in service]
    assert len(others) == 3
    assert [name for name in others if not re.search(r":v?\d+(\.\d+)*(-\w+)?$", name)] == []


def test_what_is_waited_for_says_when_it_is_there() -> None:
    order = TopologicalSorter({service: needs(service) for service in SERVICES})
    assert sorted(order.static_order()) == sorted(SERVICES)
    for service in SERVICES:
        for name, condition in needs(service).items():
            ends = condition == "service_completed_successfully"
            assert ends is (name not in KEPT_UP)
            assert ends or "healthcheck" in SERVICES[name]


@pytest.mark.parametrize("service", sorted({*OURS} & {*KEPT_UP}))
def test_what_stays_up_waits_for_the_schema_and_ends_in_order(service: str) -> None:
    assert needs(service)["migrate"] == "service_completed_successfully"
    assert int(SERVICES[service]["stop_grace_period"].removesuffix("s")) >= 30


def test_volumes_are_used_and_ports_are_this_machines() -> None:
    mounted = {
        volume.partition(":")[0] for each in SERVICES.values() for volume in each.get("volumes", ())
    }
    assert mounted == {*COMPOSE["volumes"]}
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def make_secrets(ours: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    code = SERVICES["secrets"]["command"][0].replace("$$", "$")
    subprocess.run([sys.executable, "-c", code, ours, database], check=True)  # noqa: S603 - our own code


def test_secrets_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, database = tmp_path / "ours", tmp_path / "database"
    ours.mkdir()
    database.mkdir()
    make_secrets(ours, database, monkeypatch)
    made = {path.name: path.read_text() for path in [*ours.iterdir(), *database.iterdir()]}
    assert sorted(made) == ["database-url", "master-key", "password", "superuser-password"]
    assert all(len(text) >= 32 for text in made.values())
    assert len({*made.values()}) == 4
    assert made["database-url"] == f"postgresql://jangada:{made['password']}@postgres:5432/jangada"
    assert stat.S_IMODE((database / "password").stat().st_mode) & 0o444 == 0o444
    make_secrets(ours, database, monkeypatch)
    assert (ours / "master-key").read_text() == made["master-key"]
