"""Prints the Makefile's targets with their comments, by section."""

import re

from toolchain import ROOT

LINE = re.compile(
    r"^(?:##@ (?P<section>.+)|(?P<target>[a-z0-9-]+):.*?## (?P<text>.+))$", re.MULTILINE
)

print("Usage: make TARGET")
for match in LINE.finditer((ROOT / "Makefile").read_text(encoding="utf-8")):
    if match["section"]:
        print(f"\n{match['section']}")
    else:
        print(f"  {match['target']:<9} {match['text']}")
