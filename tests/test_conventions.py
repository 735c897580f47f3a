"""The conventions of the tree: what CONTRIBUTING says, held by a test.

`scripts/rules.py` holds the rules over single files; here is the proof that each one bites, and
what can only be said of the tree as a whole.
"""

import ast
import importlib
import pkgutil
import re
import subprocess
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from rules import RULES, faults
from sources import Function, Source, called, parents, parse, sources
from toolchain import ROOT

import jangada
import jangada_api
import jangada_operator
import jangada_queue
import jangada_worker
from jangada.config import known_keys
from jangada.environment import PREFIX
from jangada.errors import KINDS, JangadaError
from jangada.jobs.schemas import JobArgs

SYSTEM_SCOPE = {
    "jangada.accounts.keyring.list_keys": "signing keys belong to the platform",
    "jangada.accounts.keyring.read_keys": "signing keys belong to the platform",
    "jangada.accounts.keyring.rotate": "signing keys belong to the platform",
    "jangada.accounts.service.erasure.erase_account": "a person leaves every tenant at once",
    "jangada.accounts.service.housekeeping.prune": "ends what has expired, whosever it is",
    "jangada.accounts.service.profile.change_password": "ends sessions in every tenant",
    "jangada.accounts.service.registration.register": "makes the tenant",
    "jangada.accounts.service.sessions.end_all_sessions": "ends sessions in every tenant",
    "jangada.accounts.service.sign_in._find_candidate": "the tenant is known only afterwards",
    "jangada.accounts.service.sign_in._open": "the tenant is known only afterwards",
    "jangada.accounts.throttle._count_in_postgres": "nobody is signed in yet",
    "jangada.accounts.throttle._spent_in_postgres": "nobody is signed in yet",
    "jangada.contacts.housekeeping.prune_rejects": "ends what has expired, whosever it is",
    "jangada.db.check_role": "asks PostgreSQL about the role",
    "jangada.files.uploads._remove": "sweeps blobs of uploads that broke off",
    "jangada.files.uploads.sweep_uploads": "sweeps uploads that broke off",
    "jangada.jobs.commands._in_system_scope.run": "an operator looks at any tenant's jobs",
    "jangada.jobs.commands._redrive": "an operator redrives any tenant's jobs",
    "jangada_worker.child.app.__init__": "grants and endings of all tenants' jobs",
    "jangada_worker.dispatcher.__init__": "delivery serves all tenants",
    "jangada_worker.parent.supervisor.__init__": "beats for processes that run all tenants' jobs",
    "jangada.jobs.delivery.connection._set_up": "a whole session, for delivery serves all tenants",
    "jangada.jobs.delivery.connection._scope": "delivery serves all tenants",
    "jangada.jobs.delivery.connection.indexed_scope": "delivery serves all tenants",
    "jangada.jobs.delivery.connection.probing_statement": "delivery serves all tenants",
    "jangada.jobs.delivery.connection.probing_scope": "delivery serves all tenants",
    "jangada.jobs.delivery.dispatch.count_aside": "delivery serves all tenants",
    "jangada.jobs.delivery.dispatch.dispatch_round": "delivery serves all tenants",
    "jangada.jobs.delivery.dispatch.list_queues": "delivery serves all tenants",
    "jangada.jobs.delivery.dispatch.promote": "delivery serves all tenants",
    "jangada.jobs.delivery.dispatch.survey": "delivery serves all tenants",
    "jangada.jobs.delivery.dispatch.upstream": "delivery serves all tenants",
    "jangada.jobs.delivery.finish.finish": "delivery serves all tenants",
    "jangada.jobs.delivery.grant.grant": "delivery serves all tenants",
    "jangada.jobs.delivery.kinds.prune_starts": "counts starts of all tenants",
    "jangada.jobs.delivery.retention.prune": "ends what has expired, whosever it is",
    "jangada.jobs.delivery.sweep.sweep": "delivery serves all tenants",
    "jangada.jobs.delivery.workers.beat": "delivery serves all tenants",
    "jangada.jobs.delivery.workers.bury": "delivery serves all tenants",
    "jangada.jobs.delivery.workers.deregister": "delivery serves all tenants",
    "jangada.jobs.delivery.workers.find_cancelled": "delivery serves all tenants",
    "jangada.jobs.delivery.workers.find_running": "delivery serves all tenants",
    "jangada.jobs.delivery.workers.hand_back": "delivery serves all tenants",
    "jangada.jobs.delivery.workers.register": "delivery serves all tenants",
    "jangada.schedules.commands._in_system_scope.run": "an operator looks at any tenant's rows",
    "jangada.schedules.firing.fire_due": "fires the schedules of all tenants",
    "jangada_worker.dispatcher._publish": "delivery serves all tenants",
}

LAWFUL = Path("packages/jangada/src/jangada/example.py")
TEST = Path("packages/jangada/tests/test_example.py")
LONG = "x = 1\n" * 501
IMPORT = "from jangada.accounts import keyring"

PLANTED = [
    ("commit", LAWFUL, "async def f(s):\n    await s.commit()"),
    ("commit", LAWFUL, "async def f(c):\n    async with c.begin():\n        pass"),
    ("commit", LAWFUL, "async def f(c):\n    async with c.transaction():\n        pass"),
    ("commit", LAWFUL, "async def f(s):\n    async with s.one.transaction():\n        pass"),
    ("middleware", LAWFUL, "class M(BaseHTTPMiddleware):\n    pass"),
    ("middleware", LAWFUL, "@app.middleware('http')\nasync def m(): ..."),
    ("future-annotations", LAWFUL, "from __future__ import annotations"),
    ("opened-at-import", LAWFUL, "engine = create_async_engine('x', timeout=1)"),
    ("opened-at-import", LAWFUL, "class A:\n    settings = load_settings()"),
    ("environment", LAWFUL, "import os\ndef f(): return os.environ['A']"),
    ("deadline", LAWFUL, "async def f(): await asyncio.open_connection('h', 1)"),
    ("deadline", LAWFUL, "def f(): return httpx.AsyncClient()"),
    ("size", LAWFUL, LONG),
    ("size", LAWFUL, "def f():\n" + "    g()\n" * 80),
    ("module-name", Path("packages/jangada/src/jangada/utils.py"), ""),
    ("feature-init", Path("packages/jangada/src/jangada/example/__init__.py"), '"""Why."""\nx = 1'),
    ("banner", LAWFUL, "# ---------- helpers ----------"),
    ("suppression", LAWFUL, "x = 1  # noqa" + ": E501"),
    ("sleep", TEST, "async def test_a():\n    await asyncio.sleep(0.1)\n    assert True"),
    ("sleep", TEST, "async def test_a():\n    await run('pg_" + "sleep(1.5)')\n    assert True"),
    ("mock", TEST, "from unittest.mock import patch"),
    ("mock", TEST, f"{IMPORT}\ndef f(monkeypatch): monkeypatch.setattr(keyring, 'read_keys', f)"),
    ("claim", TEST, "def test_a():\n    f()"),
]

ALLOWED = [
    ("commit", Path("packages/jangada/src/jangada/db.py"), "async def f(s):\n    await s.commit()"),
    ("commit", LAWFUL, "async def f(d, t):\n    async with d.transaction(t):\n        pass"),
    ("commit", LAWFUL, "async def f(ctx):\n    async with ctx.transaction():\n        pass"),
    ("deadline", LAWFUL, "def f(): return httpx.AsyncClient(timeout=5)"),
    (
        "deadline",
        LAWFUL,
        "async def f():\n    async with asyncio.timeout(1):\n        await open_connection()",
    ),
    ("deadline", LAWFUL, "def f():\n    return urlopen('x')  # allow deadline: a file"),
    ("suppression", LAWFUL, "x = 1  # noqa" + ": E501 - a URL"),
    ("sleep", TEST, "async def test_a():\n    await asyncio.sleep(0)\n    assert True"),
    ("sleep", TEST, "async def until(f):\n    while not f():\n        await asyncio.sleep(0.1)"),
    ("sleep", TEST, "async def test_a():\n    await run('SELECT pg_sleep(30)')\n    assert True"),
    ("mock", TEST, f"{IMPORT}\ndef f(monkeypatch): monkeypatch.setattr(keyring, 'AT_ONCE', 0)"),
    ("claim", TEST, "def check():\n    assert True\ndef test_a():\n    check()"),
]


@cache
def modules() -> tuple[ModuleType, ...]:
    """Every module of the platform, imported; a test's own fixtures are none."""
    roots = (jangada, jangada_queue, jangada_api, jangada_worker, jangada_operator)
    names = (
        info.name
        for root in roots
        for info in pkgutil.walk_packages(root.__path__, f"{root.__name__}.")
        if not info.name.endswith(("__main__", ".testing", ".env")) and ".versions" not in info.name
    )
    return tuple(importlib.import_module(name) for name in names)


def descendants[T](kind: type[T]) -> Iterator[type[T]]:
    """The platform's own classes below one: those of tests don't count."""
    known = {module.__name__ for module in modules()}
    for child in kind.__subclasses__():
        if child.__module__ in known:
            yield child
        yield from descendants(child)


def tracked() -> list[Path]:
    """The text files that git knows; the examples are in many encodings."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z"],  # noqa: S607 - whichever git is there
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    files = (ROOT / name for name in listed.stdout.split("\0") if name)
    return [path for path in files if path.is_file() and b"\0" not in path.read_bytes()[:8000]]


@pytest.mark.parametrize("name", RULES)
def test_the_tree_keeps_the_rule(name: str) -> None:
    if found := [fault for source in sources() for fault in faults(name, source)]:
        pytest.fail("\n".join(found), pytrace=False)


@pytest.mark.parametrize(("name", "path", "text"), PLANTED)
def test_a_planted_fault_is_found(name: str, path: Path, text: str) -> None:
    assert list(faults(name, parse(path, text)))


@pytest.mark.parametrize(("name", "path", "text"), ALLOWED)
def test_what_is_lawful_is_let_through(name: str, path: Path, text: str) -> None:
    assert list(faults(name, parse(path, text))) == []


def test_every_rule_has_a_planted_fault() -> None:
    assert {name for name, _, _ in PLANTED} == set(RULES)


def around(call: ast.Call) -> list[Function]:
    """The functions that the call is in, innermost first."""
    return [node for node in parents(call) if isinstance(node, Function.__value__)]


def callers(production: Sequence[Source], names: Collection[str]) -> Iterator[tuple[str, Function]]:
    """The functions that call one of the names, with what they are called in full."""
    for source in production:
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Call) or called(node).rpartition(".")[2] not in names:
                continue
            functions = around(node)
            inside = reversed([function.name for function in functions])
            yield ".".join([source.module, *inside]), functions[0]


def hands_on(function: Function) -> bool:
    """Whether its callers work inside of what it opened."""
    return any("contextmanager" in ast.unparse(found) for found in function.decorator_list)


def in_system_scope(production: Sequence[Source]) -> set[str]:
    """Whatever opens the system's scope, also through a scope that is made of it."""
    names = {"system_transaction", "system_scope", "open_system_session", "DirectConnection"}
    while True:
        found = list(callers(production, names))
        scopes = names | {function.name for _, function in found if hands_on(function)}
        if scopes == names:
            return {name for name, _ in found}
        names = scopes


def test_work_outside_a_tenant_is_done_only_where_it_is_listed() -> None:
    """A new caller of the system's scope is added to the list on purpose, with its reason."""
    production = [source for source in sources() if source.is_production]
    assert in_system_scope(production) == set(SYSTEM_SCOPE)


def test_a_scope_made_of_the_systems_hides_nobody() -> None:
    scope = "@asynccontextmanager\nasync def wide(c):\n    async with system_scope(c, 'x'):\n"
    wrapped = parse(LAWFUL, f"{scope}        yield\nasync def f(c):\n    async with wide(c): ...")
    assert in_system_scope([wrapped]) == {"jangada.example.wide", "jangada.example.f"}


def test_every_error_has_a_code_of_its_own() -> None:
    errors = [error for error in descendants(JangadaError) if error not in KINDS]
    without = [error.__qualname__ for error in errors if "code" not in vars(error)]
    assert without == []


def test_every_code_is_used_once_and_well_formed() -> None:
    codes = Counter(error.code for error in descendants(JangadaError))
    assert [code for code, count in codes.items() if count > 1] == []
    assert [code for code in codes if not re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", code)] == []


def test_every_code_is_documented() -> None:
    page = (ROOT / "docs/errors.md").read_text("utf-8")
    assert [
        error.code for error in descendants(JangadaError) if f"`{error.code}`" not in page
    ] == []


NO_CODES = {"service.name", "valkey.conf", "valkey.sock"}
"""An attribute of OpenTelemetry's and files: they look like codes of errors."""


def test_every_code_that_is_written_somewhere_is_documented() -> None:
    """Also where no error is raised, as in the errors that a job keeps, and in SQL."""
    page = (ROOT / "docs/errors.md").read_text("utf-8")
    documented = set(re.findall(r"^\| `([a-z_.]+)` \|", page, re.MULTILINE))
    domains = "|".join({code.partition(".")[0] for code in documented})
    looks_like_one = re.compile(rf"""["']((?:{domains})\.[a-z_]+)["']""")
    written = {
        code
        for source in sources()
        if source.is_production
        for code in looks_like_one.findall(source.text)
    }
    assert {"job.discarded", "job.poison"} <= written
    assert written - documented - NO_CODES == set()


def test_every_job_kind_is_unique() -> None:
    kinds = Counter(args.kind for args in descendants(JobArgs))
    assert [kind for kind, count in kinds.items() if count > 1] == []


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs/settings.md").read_text("utf-8")
    assert [key for key in known_keys() if f"**`{key}`**" not in page] == []


def test_every_setting_is_read() -> None:
    """By a name behind a dot somewhere in production; a definition has none."""
    read = {
        node.attr
        for source in sources()
        if source.is_production
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Attribute)
    }
    names = {key: key.removeprefix(PREFIX).rpartition("__")[2].lower() for key in known_keys()}
    assert [key for key, name in names.items() if name not in read] == []


def test_no_file_names_this_machine_or_a_registry() -> None:
    """What is committed works on any machine; locks name packages and hashes, never a host."""
    pattern = re.compile(r"/work/|/root/|/home/\w|pypi\.org|pythonhosted\.org")
    found = {path: pattern.search(path.read_text("utf-8", "replace")) for path in tracked()}
    named = [f"{path.relative_to(ROOT)}: {match[0]}" for path, match in found.items() if match]
    assert [name for name in named if not name.startswith("tests/test_conventions.py")] == []


def test_the_makefile_stays_short_and_explains_itself() -> None:
    lines = (ROOT / "Makefile").read_text("utf-8").splitlines()
    targets = [line for line in lines if re.match(r"[a-z0-9-]+:", line)]
    recipes = [line for line in lines if line.startswith("\t")]
    assert len(targets) <= 20
    assert [line for line in targets if " ## " not in line] == []
    assert len(recipes) == len(targets)
    assert [line for line in recipes if re.search(r"[;|&]|\\$", line)] == []


def test_the_readme_stays_short() -> None:
    assert (ROOT / "README.md").read_text("utf-8").count("\n") <= 150


def test_every_lint_rule_that_is_off_says_why() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    block = text[text.index("[tool.ruff.lint]") : text.index("[tool.ruff.lint.mccabe]")]
    codes = [line for line in block.splitlines() if re.match(r'\s+"[A-Z]+\d*"', line)]
    assert [line for line in codes if "#" not in line] == []
