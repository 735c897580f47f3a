"""The generated documents."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jangada_api import documents


def run(folder: Path, *options: str) -> int:
    command = [sys.executable, "-m", "jangada_api.documents", *options]
    return subprocess.run(command, cwd=folder, check=False, capture_output=True).returncode  # noqa: S603 - our own program


def test_what_is_written_is_not_stale_until_the_source_changes(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    assert run(tmp_path, "--check") == 1
    assert list((tmp_path / "docs").iterdir()) == []
    assert run(tmp_path) == 0
    assert run(tmp_path, "--check") == 0
    page = tmp_path / "docs" / "api.md"
    page.write_text(page.read_text("utf-8") + "x", encoding="utf-8")
    assert run(tmp_path, "--check") == 1


def test_every_operation_is_in_the_route_table() -> None:
    page = documents.api_page()
    for path, item in json.loads(documents.openapi_json())["paths"].items():
        for method in item:
            assert f"| `{method.upper()} {path}` |" in page


@pytest.mark.parametrize("code", ["job.not_found", "route.not_found", "internal.error"])
def test_codes_of_the_domain_and_of_http_are_in_the_error_table(code: str) -> None:
    assert f"| `{code}` |" in documents.errors_page()


def test_every_code_has_a_meaning() -> None:
    rows = [line for line in documents.errors_page().splitlines() if line.startswith("| `")]
    assert all(row.split("|")[3].strip() for row in rows)
