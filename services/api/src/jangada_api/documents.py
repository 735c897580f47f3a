"""Writes the documents that the API's code is the source of: `python -m jangada_api.documents`.

`docs/openapi.json`, `docs/api.md` (every route) and `docs/errors.md` (every error code), into the
folder that it is run in. `--check` changes nothing and exits 1 when one is stale.
"""

import argparse
import json
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from jangada.config import Settings
from jangada.errors import all_errors
from jangada_api.app import create_app
from jangada_api.openapi import METHODS
from jangada_api.problems import ANSWERS, status_of

PACKAGES: Final = ("jangada", "jangada_api")
NOT_IMPORTED: Final = ("testing", "__main__", "versions", "env")

API_PREFACE: Final = """\
# HTTP API

Generated from the code; `docs/openapi.json` is the whole document, and a running API serves it at
`/openapi.json` with pages to read it at `/docs` and `/redoc`.

- Bodies and answers are JSON in snake_case; times are UTC; ids are UUIDs.
- Lists are pages: `{"data": […], "has_more": …, "next_cursor": …}`, with `limit` (1 to 100) and
  `cursor`. A cursor is good for the same filter and sort only.
- Every answer ≥ 400 is a problem document (RFC 9457) with a stable `code`: `docs/errors.md`.
- Every answer has an `X-Request-ID`; a safe one that you send is kept.

| operation | what | sign-in |
|---|---|---|
"""

MANAGEMENT: Final = """
On the management port, which is never routed to the public:

| operation | what |
|---|---|
| `GET /health/live` | 200 while the process runs |
| `GET /health/startup` | 200 once it serves |
| `GET /health/ready` | 200 with `degraded`, or 503 that names what is wrong |
| `GET /metrics` | Prometheus metrics |
"""

JOB_ERRORS: Final = """
In the `errors` of a job, which has one for each attempt that didn't end well, these occur, too:

| code | tried again | meaning |
|---|---|---|
| `job.failed` | yes | It raised an error that is none of ours; `detail` says which kind. |
| `job.crashed` | yes | The worker died while it ran the job; after a second time it runs alone. |
| `job.poison` | no | The worker died again while it ran nothing else: the job is discarded. |
| `job.discarded` | no | Its handler gave it up for good (`Discard`); `detail` is its reason. |
| `job.cancelled` | no | Its handler cancelled it (`Cancel`); `detail` is its reason. |
"""

ERRORS_PREFACE: Final = """\
# Error codes

Generated from the code. A code never changes its meaning; programs may rely on it. Over HTTP it
comes in a problem document (RFC 9457, `application/problem+json`):

```json
{
  "type": "urn:jangada:problem:job.not_found",
  "title": "Not Found",
  "status": 404,
  "detail": "There is no job 0198f3f0-7c1e-7a52-9d52-7d5d7bcbf4a1.",
  "code": "job.not_found",
  "request_id": "0198f3f0-8a11-7c66-8b1e-0d6b3c1d2e4f",
  "errors": []
}
```

`errors` names each fault of an invalid request: `pointer` (a JSON pointer into the body, or `?name`
of a query parameter), `code` and `detail`. There a code may also be the kind of a wrong value, such
as `missing`, `string_too_short` or `int_parsing`, and `extra_forbidden` for a field or query
parameter that there isn't: those of
[pydantic](https://docs.pydantic.dev/latest/errors/validation_errors/); `repeated` is a query
parameter that comes twice. Some codes in this table occur on the command line or in a job only; the
status is then that of their kind.

| code | status | meaning |
|---|---|---|
"""


def document() -> Mapping[str, Any]:
    """The OpenAPI document; it depends on no setting."""
    return create_app(Settings.model_construct()).openapi()


def openapi_json() -> str:
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def api_page() -> str:
    return API_PREFACE + "".join(_routes(document())) + MANAGEMENT


def _routes(made: Mapping[str, Any]) -> Iterator[str]:
    for path, item in sorted(made["paths"].items()):
        for method in (method for method in METHODS if method in item):
            operation = item[method]
            needed = "yes" if operation.get("security") else "no"
            yield f"| `{method.upper()} {path}` | {operation['summary']} | {needed} |\n"


OTHERS: Final = {
    "health.not_ready": (503, "The readiness probe's answer while something that we need is away."),
    "health.starting": (503, "The probes' answer until the process serves."),
    "resource.conflict": (409, "It collides with what is there already."),
    "resource.not_found": (404, "It does not exist, or not for you."),
}


def errors_page() -> str:
    _import_everything()
    rows = OTHERS | {answer.code: (status, answer.detail) for status, answer in ANSWERS.items()}
    for error in all_errors():
        if error.__module__.partition(".")[0] in PACKAGES:
            meaning = " ".join((error.__doc__ or "").split())
            rows.setdefault(error.code, (status_of(error), meaning))
    lines = (f"| `{code}` | {status} | {text} |\n" for code, (status, text) in sorted(rows.items()))
    return ERRORS_PREFACE + "".join(lines) + JOB_ERRORS


def _import_everything() -> None:
    """An error class is known once its module is imported."""
    for name in PACKAGES:
        for module in pkgutil.walk_packages(import_module(name).__path__, f"{name}."):
            if (
                module.name.rpartition(".")[2] not in NOT_IMPORTED
                and ".versions." not in module.name
            ):
                import_module(module.name)


DOCUMENTS: Final[Mapping[str, Callable[[], str]]] = {
    "docs/openapi.json": openapi_json,
    "docs/api.md": api_page,
    "docs/errors.md": errors_page,
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the documents of the HTTP API.")
    parser.add_argument("--check", action="store_true", help="change nothing, fail when stale")
    is_check = parser.parse_args().check
    stale = [name for name, make in DOCUMENTS.items() if _present(Path(name)) != make()]
    for name in stale:
        if not is_check:
            Path(name).write_text(DOCUMENTS[name](), encoding="utf-8")
        sys.stdout.write(f"{name} {'is stale' if is_check else 'written'}\n")
    return 1 if stale and is_check else 0


def _present(path: Path) -> str | None:
    return path.read_text("utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
