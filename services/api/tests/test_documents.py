"""The generated documents."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jangada_api import documents

type Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The program, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*options: str) -> int:
        monkeypatch.setattr(sys, "argv", ["documents", *options])
        return documents.main()

    return run


def test_what_is_written_is_not_stale_until_the_source_changes(tmp_path: Path, run: Run) -> None:
    (tmp_path / "docs").mkdir()
    assert run("--check") == 1
    assert list((tmp_path / "docs").iterdir()) == []
    assert run() == 0
    assert run("--check") == 0
    page = tmp_path / "docs" / "api.md"
    page.write_text(page.read_text("utf-8") + "x", encoding="utf-8")
    assert run("--check") == 1


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
