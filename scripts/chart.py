"""Renders the chart `charts/jangada` by helm, and says what it is to be reviewed by.

What three files of values render is kept beside them; `make docs` writes it anew, and `make check`
and the tests fail where it is stale. Helm is one of the tools that `make tools` builds; without it
nothing of this can be said.
"""

import subprocess
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Final

import tools
from toolchain import ROOT

CHART: Final = ROOT / "charts/jangada"
VALUES: Final = ("dev", "production", "small")


class ChartError(Exception):
    """Helm refuses the chart or its values; the message is helm's."""


def values(name: str) -> Path:
    return CHART / "tests" / f"{name}.yaml"


def template(program: Path, *arguments: str) -> str:
    """What `helm template` prints. Raises `ChartError`."""
    command = [str(program), "template", "shop", str(CHART), "--namespace", "team", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ChartError(done.stderr)
    return done.stdout


@cache
def rendered(name: str, program: Path) -> str:
    return template(program, "--values", str(values(name)))


def snapshots() -> Mapping[str, Callable[[], str]]:
    """How each kept rendering is written; none where helm isn't built."""
    if (found := tools.find(tools.CHART)) is None:
        return {}
    return {
        f"charts/jangada/tests/{name}.rendered.yaml": partial(rendered, name, found / "helm")
        for name in VALUES
    }
