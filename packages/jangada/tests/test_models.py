"""Each feature's models stand by themselves, as in a program that imports nothing else."""

import subprocess
import sys
from typing import Final

FEATURES: Final = ("accounts", "contacts", "files", "jobs", "tenants")

ALONE = """
import importlib, os, sys
from sqlalchemy.orm import configure_mappers
from jangada.db import Base
for feature in sys.argv[1:]:
    if (child := os.fork()) == 0:
        importlib.import_module(f"jangada.{feature}.models")
        configure_mappers()
        tables = Base.metadata.sorted_tables
        keys = {key.column.name for table in tables for key in table.foreign_keys}
        print(feature, "id" in keys, flush=True)
        break
    os.waitpid(child, 0)
"""


def test_models_know_the_tables_that_they_refer_to() -> None:
    """Writing a row fails otherwise, though reading works."""
    ended = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", ALONE, *FEATURES], capture_output=True, text=True, check=False
    )
    assert ended.stdout.splitlines() == [f"{each} True" for each in FEATURES], ended.stderr
