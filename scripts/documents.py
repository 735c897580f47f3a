"""Writes the generated documents, or checks that they are what would be written."""

import argparse
import sys
from importlib.resources import files

import chart
import settings_page
import values_page
import workerpool_page
from toolchain import ROOT, say

from jangada_api import documents as api


def definition() -> str:
    """The chart installs the definition that the operator brings."""
    found = files("jangada_operator") / "manifests" / "workerpool-crd.yaml"
    return found.read_text("utf-8")


DOCUMENTS = {
    "docs/settings.md": settings_page.page,
    ".env.example": settings_page.example,
    "docs/workerpool.md": workerpool_page.page,
    "charts/jangada/README.md": values_page.page,
    "charts/jangada/crds/workerpools.yaml": definition,
    "k8s/crds/workerpools.yaml": definition,
    **api.DOCUMENTS,
    **chart.snapshots(),
}


def stale() -> list[str]:
    """The documents that aren't what their source says now."""

    def differs(name: str) -> bool:
        path = ROOT / name
        return not path.exists() or path.read_text("utf-8") != DOCUMENTS[name]()

    return [name for name in DOCUMENTS if differs(name)]


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the generated documents.")
    parser.add_argument("--check", action="store_true", help="change nothing, fail when stale")
    if not chart.snapshots():
        say("NOT LOOKED AT: what the chart renders; `make tools ARGS=chart` builds helm.")
    names = stale()
    if parser.parse_args().check:
        for name in names:
            say(f"{name} is stale: run `make docs`.")
        return 1 if names else 0
    for name in names:
        (ROOT / name).write_text(DOCUMENTS[name](), encoding="utf-8")
        say(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
