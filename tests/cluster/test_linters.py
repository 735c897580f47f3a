"""What linters have to say of the rendered manifests, but for what is excepted with a reason.

They need no cluster, and too much else for `make test`: checkov brings a hundred packages, which
come into an environment of their own. Kube-linter could never be run where this was written.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import apart
import pytest
import yaml
from chart import CHART, PLAIN, VALUES
from toolchain import ROOT, SetupError

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

EXAMPLES = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("k8s/examples/*.yaml"))
MANIFESTS = [*(f"charts/jangada/tests/{each}.rendered.yaml" for each in VALUES), *PLAIN, *EXAMPLES]
CHECKOV = ROOT / ".checkov"
KUBE_LINTER = [
    "access-to-create-pods",
    "dangling-service",
    "deprecated-service-account-field",
    "drop-net-raw-capability",
    "env-var-secret",
    "host-ipc",
    "host-network",
    "host-pid",
    "latest-tag",
    "mismatching-selector",
    "no-read-only-root-fs",
    "non-existent-service-account",
    "privilege-escalation-container",
    "privileged-container",
    "run-as-non-root",
    "ssh-port",
    "unset-memory-requirements",
    "wildcard-in-rules",
    "writable-host-mount",
]
"""Its checks that are ours, too; which ones are its defaults changes with its version."""


@dataclass(frozen=True, order=True)
class Finding:
    """What a check says of an object."""

    check: str
    subject: str
    says: str


@dataclass(frozen=True)
class Exemption:
    """A check that isn't followed by some objects."""

    check: str
    pattern: str

    def covers(self, finding: Finding) -> bool:
        return self.check == finding.check and fnmatchcase(finding.subject, self.pattern)


def exemptions() -> Iterator[Exemption]:
    for each in yaml.safe_load((CHART / "tests/checkov.yaml").read_text("utf-8")):
        assert each.keys() == {"check", "objects", "reason"}, each
        assert each["reason"].endswith("."), each
        yield from (Exemption(each["check"], pattern) for pattern in each["objects"])


def unnamed(found: set[Finding], excepted: list[Exemption]) -> list[Finding]:
    return [each for each in sorted(found) if not any(one.covers(each) for one in excepted)]


def unneeded(found: set[Finding], excepted: list[Exemption]) -> list[Exemption]:
    return [one for one in excepted if not any(one.covers(each) for each in found)]


def lint(*command: str | Path) -> str:
    """What a linter prints; that it has found something is no failure of it."""
    done = subprocess.run(  # noqa: S603 - a linter
        [str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode in {0, 1}, done.stderr
    return done.stdout


@cache
def checkov() -> Path:
    try:
        apart.ensure(CHECKOV, "locks/checkov.txt")
    except SetupError as error:
        pytest.skip(f"NOT LOOKED AT by checkov, which can't be had here: {error}")
    return CHECKOV / "bin/checkov"


def findings(*files: str | Path) -> set[Finding]:
    alone = ["--framework", "kubernetes", "--skip-download", "--compact", "--quiet"]
    report = json.loads(lint(checkov(), *alone, "--output", "json", "--file", *files))
    assert report["summary"]["parsing_errors"] == 0
    return {
        # Its name of an object is Kind.namespace.name.
        Finding(each["check_id"], "/".join(each["resource"].split(".", 2)[::2]), each["check_name"])
        for each in report["results"]["failed_checks"]
    }


def test_checkov_finds_nothing_but_what_is_excepted_and_all_of_that() -> None:
    found, excepted = findings(*MANIFESTS), list(exemptions())
    assert unnamed(found, excepted) == []
    assert unneeded(found, excepted) == []


def test_checkov_would_find_a_container_that_may_more(tmp_path: Path) -> None:
    text = (ROOT / "k8s/base/jangada.yaml").read_text("utf-8")
    weak = text.replace("allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true")
    (tmp_path / "weak.yaml").write_text(weak, encoding="utf-8")
    found = findings(tmp_path / "weak.yaml")
    assert ("CKV_K8S_20", "Deployment/jangada-api") in {(it.check, it.subject) for it in found}


def test_an_exemption_is_of_one_check_and_has_to_be_needed() -> None:
    one, other = Finding("A1", "Job/a", "it says"), Finding("A2", "Job/a", "it says")
    needed, idle = Exemption("A1", "Job/*"), Exemption("A1", "Deployment/*")
    assert unnamed({one, other}, [needed, idle]) == [other]
    assert unneeded({one, other}, [needed, idle]) == [idle]


def test_kube_linter_finds_nothing() -> None:
    if (program := shutil.which("kube-linter")) is None:
        pytest.skip("NOT LOOKED AT by kube-linter, which isn't installed")
    chosen = ["--do-not-auto-add-defaults", "--include", ",".join(KUBE_LINTER)]
    told = json.loads(lint(program, "lint", "--format", "json", *chosen, *MANIFESTS))
    found = [
        f"{each['Check']}: {each['Object']['K8sObject']['Name']}: {each['Diagnostic']['Message']}"
        for each in told["Reports"] or ()
    ]
    assert found == []
