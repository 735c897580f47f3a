"""Writes the generated documents, or checks that they are what would be written."""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.resources import files

import chart
import dashboard
import release_page
import settings_page
import tools
import values_page
import workerpool_page
from toolchain import ROOT, say

from jangada_api import documents as api


def definition() -> str:
    """The chart installs the definition that the operator brings."""
    found = files("jangada_operator") / "manifests" / "workerpool-crd.yaml"
    return found.read_text("utf-8")


def release() -> Mapping[str, Callable[[], str]]:
    """What a release says of itself, which is known by what it renders."""
    if (found := tools.find(tools.CHART)) is None:
        return {}
    return {
        "charts/jangada/images.txt": partial(release_page.images, found / "helm"),
        "charts/jangada/Chart.yaml": partial(release_page.chart, found / "helm"),
    }


DOCUMENTS = {
    "docs/settings.md": settings_page.page,
    ".env.example": settings_page.example,
    "docs/workerpool.md": workerpool_page.page,
    "charts/jangada/README.md": values_page.page,
    "charts/jangada/crds/workerpools.yaml": definition,
    "k8s/crds/workerpools.yaml": definition,
    **api.DOCUMENTS,
    "charts/jangada/dashboards/api-and-queue.json": dashboard.page,
    **chart.snapshots(),
    **release(),
}


def stale() -> Iterator[str]:
    """The documents that aren't what their source says now.

    One after the other, for the chart is rendered with a document in it that comes before.
    """
    for name, text in DOCUMENTS.items():
        path = ROOT / name
        if not path.exists() or path.read_text("utf-8") != text():
            yield name


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the generated documents.")
    parser.add_argument("--check", action="store_true", help="change nothing, fail when stale")
    if not chart.snapshots():
        say("NOT LOOKED AT: what the chart renders; `make tools ARGS=chart` builds helm.")
    if parser.parse_args().check:
        names = list(stale())
        for name in names:
            say(f"{name} is stale: run `make docs`.")
        return 1 if names else 0
    for name in stale():
        (ROOT / name).write_text(DOCUMENTS[name](), encoding="utf-8")
        say(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
