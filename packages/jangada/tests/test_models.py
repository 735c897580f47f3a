"""Each feature's models stand by themselves, as in a program that imports nothing else."""

import subprocess
import sys

import pytest

ALONE = """
import importlib, sys
from sqlalchemy.orm import configure_mappers
from jangada.db import Base
importlib.import_module(sys.argv[1])
configure_mappers()
print([key.column.name for table in Base.metadata.sorted_tables for key in table.foreign_keys])
"""


@pytest.mark.parametrize("feature", ["accounts", "contacts", "files", "jobs", "tenants"])
def test_models_know_the_tables_that_they_refer_to(feature: str) -> None:
    """Writing a row fails otherwise, though reading works."""
    ended = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", ALONE, f"jangada.{feature}.models"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "id" in ended.stdout
