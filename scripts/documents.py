"""Writes the generated documents, or checks that they are what would be written."""

import argparse
import sys

import settings_page
import workerpool_page
from toolchain import ROOT, say

from jangada_api import documents as api

DOCUMENTS = {
    "docs/settings.md": settings_page.page,
    ".env.example": settings_page.example,
    "docs/workerpool.md": workerpool_page.page,
    **api.DOCUMENTS,
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
