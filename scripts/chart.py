"""Renders the chart `charts/jangada` by helm.

What three files of values render is kept beside them, and in `k8s/` what kustomize begins with;
`make docs` writes it anew, and `make check` and the tests fail where it is stale. Helm is one of
the tools that `make tools` builds; without it nothing of this can be said.
"""

import subprocess
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

import tools
import yaml
from toolchain import ROOT

CHART: Final = ROOT / "charts/jangada"
VALUES: Final = ("dev", "production", "small")
PLAIN: Final = ("k8s/base/jangada.yaml", "k8s/overlays/dev/jangada.yaml")
"""For kustomize, each rendered by the `values.yaml` beside it."""
FAST: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, which takes a tenth of the time, where PyYAML was built with it."""

type Object = Mapping[str, Any]


class ChartError(Exception):
    """Helm refuses the chart or its values; the message is helm's."""


def values(name: str) -> Path:
    return CHART / "tests" / f"{name}.yaml"


def template(program: Path, *arguments: str, release: str = "shop") -> str:
    """What `helm template` prints. Raises `ChartError`."""
    command = [str(program), "template", release, str(CHART), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChartError(done.stderr)
    return done.stdout


@cache
def rendered(name: str, program: Path) -> str:
    return template(program, "--values", str(values(name)), "--namespace", "team")


def parsed(text: str) -> list[Object]:
    """The objects of a manifest."""
    return [each for each in yaml.load_all(text, FAST) if each]


@cache
def objects(name: str, program: Path) -> tuple[Object, ...]:
    """What one file of values renders; of all who ask, so not to be changed."""
    return tuple(parsed(rendered(name, program)))


def plain(name: str, program: Path) -> str:
    """The same for people without helm: nothing says that helm looks after it."""
    beside = (ROOT / name).with_name("values.yaml")
    text = template(program, "--skip-tests", "--values", str(beside), release="jangada")
    lines = text.splitlines(keepends=True)
    kept = [line for line in lines if "helm.sh/chart:" not in line and "# Source:" not in line]
    return "".join(kept).replace("managed-by: Helm", "managed-by: kustomize")


def snapshots() -> Mapping[str, Callable[[], str]]:
    """How each kept rendering is written; none where helm isn't built."""
    if (found := tools.find(tools.CHART)) is None:
        return {}
    helm = found / "helm"
    return {
        **{
            f"charts/jangada/tests/{name}.rendered.yaml": partial(rendered, name, helm)
            for name in VALUES
        },
        **{name: partial(plain, name, helm) for name in PLAIN},
    }
