"""Changes the code on purpose, one place at a time, and asks the tests whether they notice.

A sample of mutations, always the same for a seed, of the parts whose errors cost most: tenancy,
tokens, the states of jobs, the reading of CSV files. Each runs against the tests of its part, on a
copy of the package that shadows the real one, so the checkout is never touched. A mutation that no
test notices is a survivor: it needs a test, or an explanation in `docs/mutants.md`, which names it
by its text. Exits 1 when a survivor is not explained, or an explained one is noticed after all.
"""

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mutations import Mutation, mutated, mutations
from toolchain import ROOT

SOURCE = ROOT / "packages/jangada/src"
EXPLAINED = ROOT / "docs/mutants.md"
SEED = "jangada"
SAMPLE = 30
PATIENCE = 4.0
PYTEST = (
    "-q",
    "-x",
    "-n0",
    "--no-header",
    "--tb=no",
    "-p",
    "no:randomly",
    "-p",
    "no:cacheprovider",
)


@dataclass(frozen=True, slots=True)
class Part:
    """Files of the domain whose mutations the tests named must notice."""

    name: str
    files: Sequence[str]
    tests: Sequence[str]


PARTS = (
    Part(
        "tenancy",
        [
            *("db.py", "db_errors.py", "postgres_errors.py", "scopes.py", "commits.py"),
            *("migrations/tenancy.py", "migrations/versions/0001*.py", "tenants/*.py"),
        ],
        [
            *("test_tenancy.py", "test_tenancy_catalogue.py", "test_tenancy_scopes.py"),
            *(
                "test_db.py",
                "test_db_connections.py",
                "test_db_failures.py",
                "test_migrations.py",
                "test_runtime.py",
                "test_connections.py",
                "accounts/test_profile.py",
            ),
        ],
    ),
    Part(
        "tokens",
        [
            *("accounts/access_tokens.py", "accounts/refresh_tokens.py", "accounts/revocations.py"),
            *("accounts/keyring.py", "accounts/signing_keys.py", "accounts/derivation.py"),
            *("accounts/service/refreshing.py", "accounts/service/issuing.py"),
        ],
        ["accounts"],
    ),
    Part(
        "job states",
        ["jobs/service.py", "jobs/context.py", "jobs/delivery/*.py"],
        ["jobs"],
    ),
    Part(
        "CSV files",
        ["contacts/reading/*.py", "contacts/emails.py", "contacts/phones.py"],
        [
            *("contacts/test_records.py", "contacts/test_rows.py", "contacts/test_columns.py"),
            *("contacts/test_decoding.py", "contacts/test_emails.py", "contacts/test_phones.py"),
            "contacts/test_importing.py",
        ],
    ),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutation: killed, or survived."""

    mutation: Mutation
    survived: bool


def candidates(part: Part) -> Iterator[Mutation]:
    for pattern in part.files:
        for path in sorted((SOURCE / "jangada").glob(pattern)):
            module = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
            yield from mutations(path, module.removeprefix("jangada."))


def sample(part: Part, size: int, seed: str) -> list[Mutation]:
    """The mutations whose names hash lowest: an edit elsewhere doesn't change the choice."""

    def rank(mutation: Mutation) -> bytes:
        return hashlib.sha256(f"{seed}/{mutation.key}".encode()).digest()

    return sorted(candidates(part), key=rank)[:size]


def run_tests(part: Part, shadow: Path, patience: float) -> int | None:
    """The exit code of the part's tests on a copy of the package; None when they hang."""
    environment = {**os.environ, "PYTHONPATH": str(shadow), "PYTHONDONTWRITEBYTECODE": "1"}
    tests = [f"packages/jangada/tests/{name}" for name in part.tests]
    command = [str(Path(sys.executable).parent / "pytest"), *PYTEST, *tests]
    running = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return running.wait(timeout=patience)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def baseline(part: Part) -> float:
    """The seconds that the tests take when nothing is changed. They must pass then."""
    started = time.monotonic()
    if run_tests(part, SOURCE, patience=900) != 0:
        raise SystemExit(f"{part.name}: the tests fail before anything is changed")
    return time.monotonic() - started


def judge(part: Part, mutation: Mutation, patience: float) -> Verdict:
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        shadow = Path(folder)
        shutil.copytree(
            SOURCE, shadow, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__")
        )
        (shadow / mutation.path.relative_to(SOURCE)).write_text(mutated(mutation), "utf-8")
        verdict = Verdict(mutation, survived=run_tests(part, shadow, patience) == 0)
    print("S" if verdict.survived else ".", end="", flush=True)
    return verdict


def survivors(part: Part, size: int, seed: str) -> list[Mutation]:
    chosen = sample(part, size, seed)
    seconds = baseline(part)
    print(
        f"{part.name}: {len(chosen)} mutations, {seconds:.0f} s of tests each ", end="", flush=True
    )
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        judged = pool.map(lambda each: judge(part, each, PATIENCE * seconds + 10), chosen)
        found = [verdict.mutation for verdict in judged if verdict.survived]
    print(f" {len(found)} survived")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Ask the tests whether they notice changes.")
    parser.add_argument("--part", choices=[part.name for part in PARTS], help="only this one")
    parser.add_argument("--sample", type=int, default=SAMPLE, help="mutations of each part")
    parser.add_argument("--seed", default=SEED, help="another seed draws others")
    options = parser.parse_args()
    explained = EXPLAINED.read_text("utf-8") if EXPLAINED.exists() else ""
    unexplained = 0
    for part in PARTS:
        if options.part in {None, part.name}:
            for mutation in survivors(part, options.sample, options.seed):
                is_known = mutation.key in explained
                unexplained += not is_known
                word = "explained" if is_known else "SURVIVED"
                place = mutation.path.relative_to(ROOT)
                print(f"  {word} {place}:{mutation.line}\n    {mutation.key}")
    print(f"{unexplained} survivors without an explanation in docs/mutants.md")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
