"""Builds the programs that `tools/` pins, and keeps them for every checkout of this user.

A set is built once for what it is made from: its go.mod, its go.sum and the flags. Whoever asks
meanwhile waits for that one build. It appears whole or not at all.
"""

import fcntl
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from toolchain import ROOT

from jangada.local.process import Child, Command

FOLDER: Final = ROOT / "tools"
PLACE: Final = "JANGADA_TOOLS"
INSTALLED: Final = "/usr/local/go/bin"
"""Where Go's own installer puts it, which isn't on every PATH."""

GO_ENVIRON: Final = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": ""}
SAID_EVERY: Final = 15.0
SHOWN: Final = 12
ENOUGH_DISK: Final = 2 << 30
KUBERNETES: Final = "k8s.io/kubernetes"


@dataclass(frozen=True, slots=True)
class ToolSet:
    """Programs that are built together: what each is called, and its package."""

    name: str
    programs: Mapping[str, str]
    versions: Mapping[str, tuple[str, str]]
    """Variables that are to hold the version of a module, and how they write it."""
    files: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Folders to be had beside the programs, each a module's own."""

    @property
    def folder(self) -> Path:
        return FOLDER / self.name


TOLD: Final = {
    f"k8s.io/{package}.{variable}": (KUBERNETES, form)
    for package in ("component-base/version", "client-go/pkg/version")
    for variable, form in (
        ("gitVersion", "v{version}"),
        ("gitMajor", "{major}"),
        ("gitMinor", "{minor}"),
    )
}
"""Where programs of Kubernetes have their version."""

CONTROL: Final = ToolSet(
    "control",
    {
        **{
            name: f"{KUBERNETES}/cmd/{name}"
            for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")
        },
        "kwok": "sigs.k8s.io/kwok/cmd/kwok",
        "etcd": "go.etcd.io/etcd/server/v3",
    },
    {"sigs.k8s.io/kwok/pkg/consts.Version": ("sigs.k8s.io/kwok", "{version}"), **TOLD},
)
NODE: Final = ToolSet(
    "node", {name: f"{KUBERNETES}/cmd/{name}" for name in ("kubelet", "kube-proxy")}, TOLD
)
"""Of a release that starts under the first version of cgroups, too."""

KEDA: Final = ToolSet(
    "keda",
    {
        "operator": "github.com/kedacore/keda/v2/cmd/operator",
        "adapter": "github.com/kedacore/keda/v2/cmd/adapter",
    },
    {"github.com/kedacore/keda/v2/version.Version": ("github.com/kedacore/keda/v2", "{version}")},
    {"definitions": ("github.com/kedacore/keda/v2", "config/crd/bases")},
)
CHART: Final = ToolSet(
    "chart",
    {
        "helm": "helm.sh/helm/v4/cmd/helm",
        "kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform",
    },
    {
        "helm.sh/helm/v4/internal/version.version": ("helm.sh/helm/v4", "v{version}"),
        "main.version": ("github.com/yannh/kubeconform", "v{version}"),
    },
)
HELM3: Final = ToolSet(
    "helm3",
    {"helm": "helm.sh/helm/v3/cmd/helm"},
    {
        "helm.sh/helm/v3/internal/version.version": ("helm.sh/helm/v3", "v{version}"),
        **{
            f"helm.sh/helm/v3/pkg/{package}.k8sVersion{part}": ("k8s.io/client-go", form)
            for package in ("chartutil", "lint/rules")
            for part, form in (("Major", "1"), ("Minor", "{minor}"))
        },
    },
)
"""What many still run; a chart is to behave alike under both."""

SETS: Final = {each.name: each for each in (CONTROL, KEDA, CHART, HELM3, NODE)}

REASONS: Final = (
    (r"no space left on device", "the disk is full; Go's caches grow to 10 GB"),
    (r"go\.mod requires go >= (?P<found>[\d.]+)", "its go.mod needs Go {found} or newer"),
    (
        r"(?P<found>.*(dial tcp|no such host|i/o timeout|TLS handshake|proxyconnect|EOF).*)",
        "the modules could not be fetched, so a network is needed ({found})",
    ),
    (
        r"(?P<found>.*module lookup disabled.*)",
        "the modules could not be fetched: GOPROXY forbids it ({found})",
    ),
    (r"signal: killed", "a compiler was killed, probably for want of memory: 3 GB are needed"),
)
"""What Go says when it fails, and what that means to whoever asked for the tools."""


class ToolsError(Exception):
    """A set can't be built here; the message says what is needed."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def cache() -> Path:
    """Where the built programs are kept."""
    if place := os.environ.get(PLACE):
        return Path(place).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "jangada" / "tools"


def find_go() -> Path:
    path = os.pathsep.join((os.environ.get("PATH", ""), INSTALLED))
    if (found := shutil.which("go", path=path)) is None:
        raise ToolsError("Go is needed to build them; there is no `go` on the PATH.")
    return Path(found)


def pinned(tools: ToolSet) -> Mapping[str, str]:
    """The versions of modules in its go.mod, without their v."""
    text = (tools.folder / "go.mod").read_text("utf-8")
    return dict(re.findall(r"^\s+(\S+) v(\S+)", text, re.MULTILINE))


def linked(tools: ToolSet) -> str:
    """The linker's flags: no symbols, and the versions that the programs are to tell."""
    flags, modules = ["-s", "-w"], pinned(tools)
    for variable, (module, form) in tools.versions.items():
        version = modules[module]
        major, minor, _ = version.split(".", 2)
        flags += ["-X", f"{variable}={form.format(version=version, major=major, minor=minor)}"]
    return " ".join(flags)


def fingerprint(tools: ToolSet) -> str:
    """Of all that the programs are made from but Go itself: any that builds them will do."""
    digest = hashlib.sha256()
    for name in ("go.mod", "go.sum"):
        digest.update((tools.folder / name).read_bytes())
    programs = sorted(tools.programs.items())
    digest.update(
        repr(
            (linked(tools), programs, sorted(tools.files.items()), platform.machine(), sys.platform)
        ).encode()
    )
    return digest.hexdigest()[:16]


def home(tools: ToolSet) -> Path:
    return cache() / f"{tools.name}-{fingerprint(tools)}"


def find(tools: ToolSet) -> Path | None:
    """The folder of its programs, where they have been built."""
    folder = home(tools)
    return folder if folder.is_dir() else None


def ensure(tools: ToolSet) -> Path:
    """The folder of its programs, built when needed. Raises `ToolsError`."""
    return find(tools) or _build_alone(tools)


def _build_alone(tools: ToolSet) -> Path:
    folder, go = home(tools), find_go()
    try:
        with _turn(tools):
            if not folder.is_dir():
                _build(tools, go, folder)
    except OSError as error:
        raise ToolsError(
            f"{cache()} can't be written: {error.strerror}. {PLACE} names another."
        ) from error
    return folder


@contextmanager
def _turn(tools: ToolSet) -> Iterator[None]:
    """One build of a set at a time."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"{tools.name}.lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Another build of {tools.name} is under way; waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(tools: ToolSet, go: Path, folder: Path) -> None:
    """Build beside, then rename: what a killed build left is removed by the next one."""
    if shutil.disk_usage(cache()).free < ENOUGH_DISK:
        raise ToolsError(f"{cache()} has less than 2 GB of disk left. {PLACE} names another.")
    draft = cache() / f"{tools.name}.part"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    began = time.monotonic()
    say(f"Building {', '.join(tools.programs)}; the first time may take a quarter of an hour.")
    try:
        _compile(tools, go, draft)
        for name, package in tools.programs.items():
            (draft / executable_name(package)).rename(draft / name)
        for name, (module, inside) in tools.files.items():
            _copy(_module(tools, go, module) / inside, draft / name)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    say(f"Built in {time.monotonic() - began:.0f} s, into {folder}.")


def executable_name(package: str) -> str:
    """What Go calls the program: the last part of the path that is no version."""
    return next(part for part in reversed(package.split("/")) if not re.fullmatch(r"v\d+", part))


def _module(tools: ToolSet, go: Path, module: str) -> Path:
    """Where Go keeps a module that it has built from."""
    command = [str(go), "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", module]
    environ = {**os.environ, **GO_ENVIRON}
    done = subprocess.run(
        command, cwd=tools.folder, env=environ, capture_output=True, text=True, check=True
    )
    return Path(done.stdout.strip())


def _copy(source: Path, target: Path) -> None:
    """Files, but not their permissions: Go's own may not be removed again."""
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())


def _compile(tools: ToolSet, go: Path, draft: Path) -> None:
    command = Command(
        argv=[
            *(str(go), "build", "-v", "-mod=readonly", "-trimpath"),
            *("-ldflags", linked(tools), "-o", f"{draft}{os.sep}", *tools.programs.values()),
        ],
        environ={**os.environ, **GO_ENVIRON},
        folder=tools.folder,
        death_signal=signal.SIGKILL,
    )
    reading, writing = os.pipe()
    child = Child(command, output=writing)
    os.close(writing)
    try:
        said = _follow(tools, reading)
        code = child.ended.result()
    except BaseException:
        child.stop(())
        raise
    if code:
        raise ToolsError(_reason(tools, said))


def _follow(tools: ToolSet, reading: int) -> Sequence[str]:
    """Say now and then how far it is; answers what Go said last that is no package's name."""
    began, count, last = time.monotonic(), 0, deque[str](maxlen=SHOWN)
    over = threading.Event()

    def speak() -> None:
        while not over.wait(SAID_EVERY):
            say(f"  {time.monotonic() - began:5.0f} s: {count} packages of {tools.name} compiled")

    threading.Thread(target=speak, daemon=True).start()
    try:
        with os.fdopen(reading, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if re.fullmatch(r"[\w./~+-]+\n", line):
                    count += 1
                elif not line.startswith("go: downloading "):
                    last.append(line.rstrip())
    finally:
        over.set()
    return last


def _reason(tools: ToolSet, said: Sequence[str]) -> str:
    text = "\n".join(said)
    for pattern, meaning in REASONS:
        if found := re.search(pattern, text):
            reason = meaning.format(**found.groupdict())
            return f"{', '.join(tools.programs)} can't be built: {reason}."
    return f"{', '.join(tools.programs)} can't be built:\n{text}"


def main(names: Sequence[str]) -> int:
    if unknown := [name for name in names if name not in SETS]:
        say(f"There is no set {', '.join(unknown)}; there are {', '.join(SETS)}.")
        return 2
    try:
        for name in names or [CONTROL.name]:
            print(ensure(SETS[name]))
    except ToolsError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("Interrupted; nothing was kept but Go's own caches.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
