"""Writes or checks the locks: hashed requirement files, the same on every platform and registry.

`dev` has everything; a service's lock has what its image needs, in the versions of `dev`, so that
what is tested is what is shipped; `uv` pins the tool that reads them; `audit`, `checkov` and
`bench-…`, a rival of the queue bench each, are apart from all others, because their pins conflict
or are many. A lock is stale when compiling again, with the committed file as preference, changes
it: a `pyproject.toml` then asks for something that the lock doesn't hold. Compiling asks the
registry, so without a network the check fails and says so.
"""

import argparse
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path

from environment import members
from toolchain import ROOT, SetupError, ensure_uv, run, say, uv_environment, wanted_python

LOCKS = ROOT / "locks"


def _projects() -> list[str]:
    """Relative paths, because they appear in the locks' annotations."""
    return [f"{member}/pyproject.toml" for member in members()]


def _services() -> dict[str, str]:
    return {Path(path).parent.name: path for path in _projects() if path.startswith("services/")}


def _alone() -> list[str]:
    """The dependency groups that get a lock of their own, whatever the others hold."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    return [name for name in groups if name != "dev"]


def _own_names() -> Iterable[str]:
    """The workspace's distributions: a lock lists only what others published."""
    names = (member.name for member in members())
    return (name if name == "jangada" else f"jangada-{name}" for name in names)


def _compile(target: Path, inputs: Iterable[str]) -> None:
    """Compile one lock; what `target` holds already are the preferences."""
    flags = ["--quiet", "--universal", "--generate-hashes", "--python-version", wanted_python()]
    hidden = [f"--no-emit-package={name}" for name in _own_names()]
    header = ["--custom-compile-command", "make lock"]
    command = ["pip", "compile", *flags, *hidden, *header, *inputs, "--output-file", str(target)]
    run([ensure_uv(), *command], uv_environment(), what=f"Compiling locks/{target.name}")


def compile_all(folder: Path, *, upgrade: bool) -> None:
    """Make every lock in `folder`, preferring what the committed ones hold."""
    newest = ["--upgrade"] if upgrade else []
    dev = [*_projects(), "--all-extras", "--group", "pyproject.toml:dev"]
    alone = {name: ["--group", f"pyproject.toml:{name}"] for name in _alone()}
    for name, inputs in {**alone, "dev": dev}.items():
        if (LOCKS / f"{name}.txt").exists():
            shutil.copy(LOCKS / f"{name}.txt", folder)
        _compile(folder / f"{name}.txt", [*inputs, *newest])
    for name, project in _services().items():
        shutil.copy(folder / "dev.txt", folder / f"{name}.txt")
        _compile(folder / f"{name}.txt", [project])


def _changed(fresh: Path) -> bool:
    committed = LOCKS / fresh.name
    return not committed.exists() or committed.read_bytes() != fresh.read_bytes()


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the locks.")
    parser.add_argument("--check", action="store_true", help="change nothing, fail when stale")
    parser.add_argument("--upgrade", action="store_true", help="take the newest allowed versions")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            compile_all(Path(scratch), upgrade=options.upgrade)
        except SetupError as error:
            say(f"{error} Without the registry nobody can tell whether the locks are stale.")
            return 1
        changed = [fresh for fresh in sorted(Path(scratch).iterdir()) if _changed(fresh)]
        for fresh in changed:
            if options.check:
                say(f"locks/{fresh.name} is stale: run `make lock`.")
            else:
                shutil.copy(fresh, LOCKS)
    return 1 if options.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
