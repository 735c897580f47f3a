"""Removes what the Makefile's targets made, but for the local platform's data (`up --fresh`)."""

import shutil

from toolchain import ROOT

ENVIRONMENTS = (".venv", ".rivals", ".checkov", ".audit", ".uv")
CACHES = (".cache", ".hypothesis", ".import_linter_cache", ".mypy_cache", ".pytest_cache")

for name in (*ENVIRONMENTS, *CACHES, ".ruff_cache", "mutants"):
    shutil.rmtree(ROOT / name, ignore_errors=True)
for path in ROOT.glob("*/**/__pycache__"):
    shutil.rmtree(path)
