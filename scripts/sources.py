"""The tree's Python files, read once: what the conventions, the sizes and the mutants look at."""

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from toolchain import ROOT

type Function = ast.FunctionDef | ast.AsyncFunctionDef
AREAS = ("packages", "services", "tests", "scripts", "bench")


@dataclass(frozen=True, slots=True)
class Source:
    """One Python file with its syntax tree; every node knows its parent (`node.parent`)."""

    path: Path
    text: str
    tree: ast.Module = field(repr=False)

    @property
    def name(self) -> str:
        """The path from the root: `packages/jangada/src/jangada/db.py`."""
        return self.path.as_posix()

    @property
    def module(self) -> str:
        """The dotted name: `jangada.db`."""
        parts = list(self.path.with_suffix("").parts)
        inside = parts[parts.index("src") + 1 :] if "src" in parts else parts
        return ".".join(inside[:-1] if inside[-1] == "__init__" else inside)

    @property
    def is_test(self) -> bool:
        return "tests" in self.path.parts or self.path.name == "conftest.py"

    @property
    def is_production(self) -> bool:
        return "src" in self.path.parts and self.path.name != "testing.py"

    def line(self, number: int) -> str:
        return dict(enumerate(self.text.splitlines(), 1)).get(number, "")


def parse(path: Path, text: str) -> Source:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            child.parent = node  # type: ignore[attr-defined] # a field of our own on each node
    return Source(path, text, tree)


def parents(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes around this one, innermost first."""
    while (node := getattr(node, "parent", None)) is not None:  # type: ignore[assignment] # ends
        yield node


@functools.cache
def sources() -> tuple[Source, ...]:
    paths = (path for area in AREAS for path in sorted((ROOT / area).rglob("*.py")))
    files = [ROOT / "conftest.py", *paths]
    return tuple(parse(path.relative_to(ROOT), path.read_text("utf-8")) for path in files)


def functions(source: Source) -> Iterator[Function]:
    for node in ast.walk(source.tree):
        if isinstance(node, Function.__value__):
            yield node


def length(function: Function) -> int:
    """Lines from `def` to the end, without decorators and docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def called(node: ast.Call) -> str:
    """The dotted name of what is called, as far as it is written down: `asyncio.sleep`."""
    return dotted(node.func)


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""
