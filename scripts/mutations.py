"""The small changes of `make mutants`: what a tired programmer might write instead.

A mutation is a change of one place: a comparison, a boolean, a number, a condition, a returned
value, a call left out, an error not raised, or one word of an SQL statement. Messages, log calls,
annotations, descriptions and a module's constants are left alone: tests that pin them down would
only be in the way.
"""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sources import Function, called, parents, parse

SHOWN = 90
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
SQL = re.compile(r"\b(SELECT|UPDATE|INSERT|DELETE|POLICY|set_config)\b")
SQL_WORDS = (
    (r" AND ", " OR "),
    (r" (?<![<>!:])= ", " <> "),
    (r" < ", " <= "),
    (r" > ", " >= "),
    (r" \+ 1\b", " + 2"),
    (r"NOT EXISTS", "EXISTS"),
    (r"(?<!NOT )EXISTS \(", "NOT EXISTS ("),
    (r"IS NULL", "IS NOT NULL"),
    (r"IS NOT NULL", "IS NULL"),
    (r"'(available|running|scheduled|retryable|completed|discarded|cancelled)'", "'paused'"),
    (r", true\)", ", false)"),
    (r"\bFORCE\b", "NO FORCE"),
)
SILENT = ("log.", "logger.", "warnings.", "structlog.")
DECLARES = {"Field", "mapped_column", "timedelta", "isinstance", "Option", "Argument", "cast"}


@dataclass(frozen=True, slots=True)
class Mutation:
    """One change. `key` names it by function and text, so that it outlives edits elsewhere."""

    path: Path
    key: str
    line: int
    index: int


@dataclass(frozen=True, slots=True)
class Change:
    """How to carry one out on the tree that it was found in."""

    node: ast.AST
    text: str
    carry_out: Callable[[], None]


def _set(node: ast.AST, name: str, value: object) -> Callable[[], None]:
    return lambda: setattr(node, name, value)


def _replace(node: ast.AST, new: ast.AST) -> Callable[[], None]:
    def carry_out() -> None:
        parent = next(parents(node))
        for name, value in ast.iter_fields(parent):
            if value is node:
                setattr(parent, name, new)
            elif isinstance(value, list) and node in value:
                value[value.index(node)] = new

    return carry_out


def _negated(test: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), test)


def _operators(node: ast.AST) -> Iterator[tuple[str, Callable[[], None]]]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in SWAPS:
        new = SWAPS[type(node.ops[0])]()
        yield type(new).__name__, _set(node, "ops", [new])
    if isinstance(node, ast.BoolOp | ast.BinOp | ast.AugAssign) and type(node.op) in SWAPS:
        new = SWAPS[type(node.op)]()
        yield type(new).__name__, _set(node, "op", new)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "without not", _replace(node, node.operand)


def _values(node: ast.AST) -> Iterator[tuple[str, Callable[[], None]]]:
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield str(not node.value), _set(node, "value", not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield str(node.value + 1), _set(node, "value", node.value + 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        is_docstring = isinstance(next(parents(node)), ast.Expr)
        yield from () if is_docstring or not SQL.search(node.value) else _sql(node, node.value)


def _sql(node: ast.Constant, text: str) -> Iterator[tuple[str, Callable[[], None]]]:
    for pattern, word in SQL_WORDS:
        for found in re.finditer(pattern, text):
            if word == " <> " and _is_assigned(text[: found.start()]):
                continue
            before = " ".join(text[max(0, found.start() - 25) : found.end() + 25].split())
            changed = f"{text[: found.start()]}{word}{text[found.end() :]}"
            yield f"{word.strip()} in `{before}`", _set(node, "value", changed)


def _is_assigned(before: str) -> bool:
    """Whether a `=` stands in `SET column = …` and is no comparison."""
    last = re.findall(r"\b(SET|WHERE|FROM|ON|WHEN)\b", before)
    return last[-1:] == ["SET"]


def _statements(node: ast.AST) -> Iterator[tuple[str, Callable[[], None]]]:
    simple = ast.Name | ast.Attribute | ast.Call | ast.Await
    if isinstance(node, ast.If | ast.IfExp | ast.While) and isinstance(node.test, simple):
        yield "negated", _set(node, "test", _negated(node.test))
    if isinstance(node, ast.Return) and node.value and not _is_none(node.value):
        yield "return None", _set(node, "value", ast.Constant(None))
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await):
        yield "left out", _replace(node, ast.Pass())
    if isinstance(node, ast.Raise) and node.exc is not None:
        yield "not raised", _replace(node, ast.Pass())


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_telling(node: ast.AST) -> bool:
    """Whether it is a call that logs, or that declares what something is."""
    call = node.value if isinstance(node, ast.Expr) else node
    return isinstance(call, ast.Call) and (
        called(call).startswith(SILENT) or called(call) in DECLARES
    )


def _is_annotation(outer: ast.AST, inner: ast.AST) -> bool:
    fields = (getattr(outer, name, None) for name in ("annotation", "returns"))
    return any(inner is field for field in fields) or inner in getattr(outer, "decorator_list", ())


def _is_constant(outer: ast.AST, inner: ast.AST, node: ast.AST) -> bool:
    """Whether it is a module's number, or the `strict` of a `zip`."""
    if isinstance(outer, ast.keyword):
        return outer.arg == "strict"
    is_top = isinstance(outer, ast.Module) and isinstance(inner, ast.Assign | ast.AnnAssign)
    return is_top and isinstance(node, ast.Constant) and isinstance(node.value, int)


def _is_left_alone(node: ast.AST) -> bool:
    """Whether the place is a message, a log call, an annotation, a constant or a guard."""
    inner = node
    for outer in (node, *parents(node)):
        is_message = isinstance(outer, ast.Raise) and outer is not node
        if is_message or _is_telling(outer) or isinstance(outer, ast.TypeAlias):
            return True
        if _is_annotation(outer, inner) or _is_constant(outer, inner, node):
            return True
        inner = outer
    return False


def changes(tree: ast.AST) -> Iterator[Change]:
    """Every change of a tree, always in the same order."""
    for node in ast.walk(tree):
        for find in (_operators, _values, _statements):
            for text, carry_out in find(node):
                if not _is_left_alone(node):
                    yield Change(node, text, carry_out)


def _where(node: ast.AST) -> str:
    names = [
        outer.name
        for outer in parents(node)
        if isinstance(outer, Function.__value__ | ast.ClassDef)
    ]
    return ".".join(reversed(names)) or "the module"


def _shown(node: ast.AST) -> str:
    """The place's text, from its statement where it is a mere constant."""
    place = next(parents(node)) if isinstance(node, ast.Constant) else node
    text = ast.unparse(place.test if isinstance(place, ast.If | ast.While) else place)
    return " ".join(text.split())[:SHOWN]


def mutations(path: Path, module: str) -> list[Mutation]:
    """Every mutation of a file; two that read the same are told apart by their number."""
    tree = parse(path, path.read_text("utf-8")).tree
    found: list[Mutation] = []
    seen: dict[str, int] = {}
    for index, change in enumerate(changes(tree)):
        is_sql = " in `" in change.text
        place = change.text if is_sql else f"{_shown(change.node)} → {change.text}"
        key = f"{module}.{_where(change.node)}: {place}"
        seen[key] = seen.get(key, 0) + 1
        numbered = f"{key} #{seen[key]}" if seen[key] > 1 else key
        found.append(Mutation(path, numbered, getattr(change.node, "lineno", 0), index))
    return found


def mutated(mutation: Mutation) -> str:
    """The file's text with the change carried out (comments are lost; nobody reads it)."""
    tree = parse(mutation.path, mutation.path.read_text("utf-8")).tree
    for index, change in enumerate(changes(tree)):
        if index == mutation.index:
            change.carry_out()
            return ast.unparse(ast.fix_missing_locations(tree))
    raise LookupError(mutation.key)
