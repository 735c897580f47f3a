"""Finds or fetches what the environment is made with: uv and a Python of the wanted version.

uv comes from PyPI into `.uv/`, exactly as `locks/uv.txt` pins it. Python is looked for on the PATH
and behind pyenv; whether one works is known only after it ran. The machine's pip configuration
(index, proxy, certificates, time limits) is handed on to uv, which doesn't read it by itself.
Runs on Python 3.11: it runs before anything else does.
"""

import ast
import contextlib
import fcntl
import functools
import glob
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".uv"
UV = TOOLS / "uv"
PINNED_UV = ROOT / "locks/uv.txt"
ATTEMPTS = 3

PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "timeout": "UV_HTTP_TIMEOUT",
    "retries": "UV_HTTP_RETRIES",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
}


class SetupError(Exception):
    """A tool could not be had; the message says what to do."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def run(command: Sequence[str | Path], env: Mapping[str, str], *, what: str) -> None:
    """Run with retries: a registry behind a noisy line fails now and then."""
    for attempt in range(1, ATTEMPTS + 1):
        if subprocess.run(command, cwd=ROOT, env=env, check=False).returncode == 0:
            return
        if attempt < ATTEMPTS:
            say(f"{what} failed; trying again ({attempt + 1} of {ATTEMPTS}).")
            time.sleep(attempt)
    raise SetupError(f"{what} failed {ATTEMPTS} times; the reason is above.")


def _answer(*command: str | Path) -> str | None:
    """What a command prints, or None when it doesn't exist or fails."""
    with contextlib.suppress(OSError):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout
    return None


def _interpreters() -> Iterator[str]:
    yield sys.executable
    yield from filter(None, (shutil.which("python3"), shutil.which("python3", path="/usr/bin")))


def _pip(scratch: Path) -> list[str]:
    """A command that runs pip: an interpreter's own, else that of a throw-away environment."""
    for interpreter in _interpreters():
        if _answer(interpreter, "-m", "pip", "--version") is not None:
            return [interpreter, "-m", "pip"]
        if _answer(interpreter, "-m", "venv", scratch) is not None:
            return [str(scratch / "bin/python"), "-m", "pip"]
    raise SetupError("Neither pip nor venv works here: install python3-venv or python3-pip.")


@contextlib.contextmanager
def only_one(name: str) -> Iterator[None]:
    """Of two commands at once in one checkout, the second waits and finds the first's work."""
    TOOLS.mkdir(exist_ok=True)
    with (TOOLS / f"{name}.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def ensure_uv() -> Path:
    """The uv that `locks/uv.txt` pins, in `.uv/`; half a download is never taken for it."""
    wanted = hashlib.sha256(PINNED_UV.read_bytes()).hexdigest()
    stamp = TOOLS / "complete"
    with only_one("uv"):
        if not UV.exists() or text_of(stamp) != wanted:
            say("Fetching uv into .uv/.")
            _fetch_uv()
            stamp.write_text(wanted, encoding="utf-8")
    return UV


def _fetch_uv() -> None:
    with tempfile.TemporaryDirectory(dir=TOOLS) as scratch:
        target = Path(scratch) / "site"
        options = ["--quiet", "--require-hashes", "--only-binary", ":all:", "--target", str(target)]
        command = [*_pip(Path(scratch) / "venv"), "install", *options, "-r", str(PINNED_UV)]
        # Settings that forbid installing outside an environment are not about this folder.
        unbound = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_ROOT_USER_ACTION": "ignore"}
        env = {**os.environ, **unbound}
        run(command, env, what="Fetching uv")
        (target / "bin/uv").replace(UV)


def _configured() -> Iterator[tuple[str, str]]:
    """What pip is told, weakest first: its files, then the environment."""
    listed = (_answer(each, "-m", "pip", "config", "list") for each in _interpreters())
    for line in next((text for text in listed if text is not None), "").splitlines():
        key, _, value = line.partition("=")
        section, _, option = key.rpartition(".")
        if section in {"global", "install"}:
            yield option, str(ast.literal_eval(value))
    for key, value in os.environ.items():
        if key.startswith("PIP_"):
            yield key.removeprefix("PIP_").lower().replace("_", "-"), value


def _adapted(option: str, value: str) -> str:
    """A value of pip's as uv takes it: pip ignores missing folders and splits at blanks."""
    if option == "find-links":
        return ",".join(part for part in value.split() if "://" in part or Path(part).exists())
    return str(int(float(value))) if option.endswith("timeout") else value


def pip_environment() -> Mapping[str, str]:
    """What pip is told about where packages are, as variables for a pip that runs elsewhere."""
    told = {
        f"PIP_{option.upper().replace('-', '_')}": _adapted(option, value).replace(",", " ")
        for option, value in _configured()
        if option in PIP_TO_UV
    }
    return {name: value for name, value in told.items() if value}


@functools.cache
def uv_environment() -> Mapping[str, str]:
    """The environment for uv: pip's configuration in uv's words, where uv has none of its own."""
    translated = {
        PIP_TO_UV[option]: _adapted(option, value)
        for option, value in _configured()
        if option in PIP_TO_UV
    }
    env = {**{key: value for key, value in translated.items() if value}, **os.environ}
    env.setdefault("UV_PYTHON_INSTALL_DIR", str(TOOLS / "python"))
    if not os.access(Path.home(), os.W_OK):
        env.setdefault("UV_CACHE_DIR", str(TOOLS / "cache"))
    return env


def wanted_python() -> str:
    return (ROOT / ".python-version").read_text(encoding="utf-8").strip()


def _candidates(version: str) -> Iterator[Path]:
    for folder in os.get_exec_path():
        yield Path(folder) / f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    # Unlike Path.glob, this one passes over folders that it may not read.
    behind = glob.glob(f"{pyenv}/versions/{version}*/bin/python{version}")  # noqa: PTH207 - as said
    yield from map(Path, sorted(behind, reverse=True))


def find_python() -> str | None:
    """The first interpreter of the wanted version that really starts: a pyenv shim may not."""
    version = wanted_python()
    question = "import sys; print('%d.%d' % sys.version_info[:2], sys._base_executable)"
    for candidate in _candidates(version):
        found, _, executable = (_answer(candidate, "-I", "-c", question) or "").partition(" ")
        if found == version:
            return executable.strip()
    return None
