"""The house rules that ruff, mypy and import-linter can't say, as functions over a syntax tree.

Each rule yields the places that break it. Where a rule is wrong for one place, the line says so and
why: `# allow deadline: the caller holds one`. A rule without such a comment in its way is a gate.
"""

import ast
import re
from collections.abc import Callable, Iterator

from sources import Function, Source, called, dotted, functions, length, parents

type Fault = tuple[int, str]
type Rule = Callable[[Source], Iterator[Fault]]

RULES: dict[str, Rule] = {}

LONGEST_FILE = 500
LONGEST_FUNCTION = 75
NEAR = 10
NO_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "misc", "manager", "managers"}
ENVIRONMENT_READERS = (
    "jangada.announcement",
    "jangada.environment",
    "jangada.config",
    "jangada.local",
    "jangada.cli",
    "jangada_queue.taskiq",  # its settings are arguments, which default to the environment
)
OPENS = {
    *("create_engine", "create_async_engine", "sessionmaker", "async_sessionmaker", "Database"),
    *("Redis", "from_url", "AsyncClient", "Client", "AsyncConnectionPool", "ConnectionPool"),
    *("load_settings", "Settings", "open_runtime", "FastAPI", "ThreadPoolExecutor"),
}
GOES_OUT = {
    *("AsyncClient", "httpx.Client", "AsyncConnectionPool"),
    *("open_connection", "open_unix_connection", "create_connection", "urlopen", "getaddrinfo"),
    *("psycopg.connect", "AsyncConnection.connect", "Connection.connect", "Redis.from_url"),
    *("redis.Redis", "Redis", "OTLPSpanExporter", "subprocess.run", "subprocess.check_output"),
    *("communicate", "obstore.store.from_url", "store.from_url", "SMTP"),
    *(f"httpx.{verb}" for verb in ("get", "post", "put", "patch", "delete", "request", "stream")),
}
DEADLINES = {"asyncio.timeout", "asyncio.wait_for", "anyio.fail_after", "anyio.move_on_after"}
WITH_DEADLINES = {"arguments"}  # of jangada.connections
JOB_CONTEXTS = (["ctx"], ["context"])
SLEEPS = {"asyncio.sleep", "anyio.sleep", "time.sleep", "sleep"}
PG_SLEEP = re.compile(r"pg_sleep\(([0-9.]+)")
HANGS = 10.0
"""Seconds from which on a statement is meant to be ended by somebody, not waited for."""
WAITS = ("assert_", "eventually", "expect", "until", "wait_until")
CLAIMS = {"raises", "warns", "fail", "timeout", "wait_for", "fail_after"}


def rule(function: Rule) -> Rule:
    RULES[function.__name__.replace("_", "-")] = function
    return function


def faults(name: str, source: Source) -> Iterator[str]:
    """`file:line: what`, for each place that breaks the rule and isn't allowed to."""
    for line, what in RULES[name](source):
        if not _is_allowed(name, source, line):
            yield f"{source.name}:{line}: {what}"


def _is_allowed(name: str, source: Source, line: int) -> bool:
    near = (source.line(number) for number in (line - 1, line) if number > 0)
    return any(re.search(rf"# allow {name}: \S", text) for text in near)


def _calls(source: Source) -> Iterator[ast.Call]:
    return (node for node in ast.walk(source.tree) if isinstance(node, ast.Call))


COMMITTING = frozenset({"jangada.db", "jangada.scopes"})


@rule
def commit(source: Source) -> Iterator[Fault]:
    """Only the database's modules begin, commit and roll back; others open their transactions."""
    if not source.is_production or source.module in COMMITTING:
        return
    for call in _calls(source):
        verb = called(call).rpartition(".")[2]
        is_verb = isinstance(call.func, ast.Attribute) and verb in {"commit", "rollback", "begin"}
        if is_verb or _opens_one_by_itself(call):
            yield call.lineno, f".{verb}() outside jangada.db and jangada.scopes"


def _opens_one_by_itself(call: ast.Call) -> bool:
    """A connection's own transaction: the database's has a tenant, and a job's context knows it."""
    *owner, verb = called(call).split(".")
    return verb == "transaction" and not call.args and owner[-1:] not in JOB_CONTEXTS


@rule
def middleware(source: Source) -> Iterator[Fault]:
    """Middleware is pure ASGI: the other kinds halve the throughput."""
    for node in ast.walk(source.tree):
        name = dotted(node) if isinstance(node, ast.Attribute | ast.Name) else ""
        if source.is_production and name.endswith("BaseHTTPMiddleware"):
            yield node.lineno, "BaseHTTPMiddleware"  # type: ignore[attr-defined] # an expression
        if isinstance(node, ast.Call) and called(node).endswith("app.middleware"):
            yield node.lineno, "@app.middleware"


@rule
def future_annotations(source: Source) -> Iterator[Fault]:
    """FastAPI, pydantic and SQLAlchemy read annotations at run time."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            yield node.lineno, "from __future__ import …"


@rule
def opened_at_import(source: Source) -> Iterator[Fault]:
    """Engines, clients, pools and settings are opened by the composition root, not by importing."""
    for call in _calls(source):
        around = [
            node for node in parents(call) if isinstance(node, Function.__value__ | ast.Lambda)
        ]
        name = called(call).rpartition(".")[2]
        if source.is_production and not around and name in OPENS:
            yield call.lineno, f"{name}() while importing"


@rule
def environment(source: Source) -> Iterator[Fault]:
    """The environment is read once, into the settings."""
    if not source.is_production or source.module.startswith(ENVIRONMENT_READERS):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and dotted(node) in {"os.environ", "os.getenv"}:
            yield node.lineno, f"{dotted(node)} outside the settings"


def _mentions_timeout(call: ast.Call) -> bool:
    inside = list(ast.walk(call))
    words = {keyword.arg for node in inside for keyword in getattr(node, "keywords", ())}
    words |= {node.value for node in inside if isinstance(node, ast.Constant)}
    helpers = {called(node) for node in inside if isinstance(node, ast.Call)}
    is_open = "sock" in words  # whoever opened the socket had the deadline
    return (
        is_open or bool(helpers & WITH_DEADLINES) or any("timeout" in str(word) for word in words)
    )


def _is_under_deadline(call: ast.Call) -> bool:
    for node in parents(call):
        items = node.items if isinstance(node, ast.With | ast.AsyncWith) else ()
        held = [item.context_expr for item in items]
        for holder in (*held, node):
            if isinstance(holder, ast.Call) and called(holder) in DEADLINES:
                return True
    return False


@rule
def deadline(source: Source) -> Iterator[Fault]:
    """Every call that leaves the process ends by itself."""
    for call in _calls(source):
        parts = called(call).split(".")
        names = {".".join(parts[-count:]) for count in (1, 2, 3)}
        goes_out = source.is_production and names & GOES_OUT
        if goes_out and not _mentions_timeout(call) and not _is_under_deadline(call):
            yield call.lineno, f"{called(call)}(…) has no deadline"


@rule
def size(source: Source) -> Iterator[Fault]:
    """Files and functions stay as long as one can keep in mind."""
    lines = source.text.count("\n")
    if lines > LONGEST_FILE:
        yield 1, f"{lines} lines; at most {LONGEST_FILE}"
    for function in functions(source):
        if length(function) > LONGEST_FUNCTION:
            yield function.lineno, f"{function.name} has {length(function)} lines"


@rule
def module_name(source: Source) -> Iterator[Fault]:
    """A module is named for what it holds."""
    for part in source.module.split("."):
        if part in NO_NAMES:
            yield 1, f"`{part}` says nothing about what it holds"


@rule
def feature_init(source: Source) -> Iterator[Fault]:
    """A feature's `__init__.py` says what the feature is, and exports nothing."""
    is_feature = source.name.endswith("__init__.py") and source.is_production
    if is_feature and source.module.count(".") == 1 and source.module != "jangada.telemetry":
        for node in source.tree.body[1:]:
            yield node.lineno, "more than a docstring"


@rule
def banner(source: Source) -> Iterator[Fault]:
    """Where a file needs section banners, it wants to be two."""
    for number, line in enumerate(source.text.splitlines(), 1):
        if re.match(r"\s*#.*[-=#*]{5}", line):
            yield number, "section banner"


@rule
def suppression(source: Source) -> Iterator[Fault]:
    """A check is silenced with a reason, on its line or in the one just before of its kind."""
    told: dict[str, int] = {}
    for number, line in enumerate(source.text.splitlines(), 1):
        found = re.search(r"# noqa: (?P<codes>[A-Z0-9, ]+?)(?P<reason>\s+[-–—]\s*\S.*)?$", line)
        if found is None:
            continue
        if found["reason"]:
            told[found["codes"]] = number
        elif number - told.get(found["codes"], -LONGEST_FILE) > NEAR:
            yield number, f"noqa {found['codes']} without a reason"


def _is_loop(node: ast.AST) -> bool:
    return isinstance(node, ast.While)


@rule
def sleep(source: Source) -> Iterator[Fault]:
    """Tests wait for what they wait for: by a signal, else by asking again and again."""
    for call in _calls(source):
        yields = call.args and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0
        asks = any(map(_is_loop, parents(call)))
        if source.is_test and called(call) in SLEEPS and not yields and not asks:
            yield call.lineno, "sleep in a test"
    for node in ast.walk(source.tree):
        text = node.value if isinstance(node, ast.Constant) else None
        found = PG_SLEEP.search(text) if source.is_test and isinstance(text, str) else None
        if found and float(found[1]) < HANGS and not any(map(_is_loop, parents(node))):
            yield node.lineno, "sleep in a test"  # type: ignore[attr-defined] # an expression


def _imported_from_us(source: Source) -> set[str]:
    """The names under which a file knows what it imported from our packages."""
    found = (node for node in ast.walk(source.tree) if isinstance(node, ast.ImportFrom))
    ours = (node for node in found if (node.module or "").startswith("jangada"))
    return {alias.asname or alias.name for node in ours for alias in node.names}


@rule
def mock(source: Source) -> Iterator[Fault]:
    """Our own code is never replaced in a test; constants (in capitals) may be."""
    ours = _imported_from_us(source)
    for call in _calls(source) if source.is_test else ():
        if called(call).endswith("monkeypatch.setattr") and len(call.args) > 1:
            target, name = call.args[:2]
            is_code = isinstance(name, ast.Constant) and not str(name.value).isupper()
            if is_code and isinstance(target, ast.Name) and target.id in ours:
                yield call.lineno, "our own code is replaced"
    for node in ast.walk(source.tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if source.is_test and any(name in {"unittest.mock", "mock"} for name in names):
            yield node.lineno, "a mock"  # type: ignore[attr-defined] # an import


def _is_checked(call: ast.Call) -> bool:
    values = [keyword.value for keyword in call.keywords if keyword.arg == "check"]
    return any(isinstance(value, ast.Constant) and value.value is True for value in values)


def _claims(function: Function, known: dict[str, Function], seen: frozenset[str]) -> bool:
    """Whether the function, or one of this file's that it calls, can fail a test on purpose."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if not isinstance(node, ast.Call):
            continue
        name = called(node).rpartition(".")[2]
        if name in CLAIMS or name.startswith(WAITS) or _is_checked(node):
            return True
        if name in known and name not in seen and _claims(known[name], known, seen | {name}):
            return True
    return False


@rule
def claim(source: Source) -> Iterator[Fault]:
    """A test asserts something, or waits for it no longer than it may take."""
    known = {function.name: function for function in functions(source)}
    for function in functions(source):
        is_test = source.is_test and function.name.startswith("test_")
        if is_test and not _claims(function, known, frozenset({function.name})):
            yield function.lineno, f"{function.name} asserts nothing"
