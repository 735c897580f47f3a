"""A forked program is what a started one would have been, and ends with whoever started it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from chaos.forkserver import Forked, ForkServer, Launch, start

from jangada.local.process import Child, Command, wait_until

PATIENCE = 60
PROBE = """
import json, os, sys
import beside
from importlib.metadata import entry_points
said = {
    "name": __name__,
    "arguments": sys.argv[1:],
    "environ": dict(os.environ),
    "folder": os.getcwd(),
    "umask": os.umask(0),
    "files": sorted(map(int, os.listdir("/proc/self/fd")))[:-1],
    "leads": os.getpid() == os.getpgid(0) == os.getsid(0),
    "beside": beside.__file__,
    "entries": [entry.value for entry in entry_points(group="probe")],
}
os.write(int(sys.argv[1]), json.dumps(said).encode())
print("out")
sys.exit("err")
"""
WAITING = "import os, signal\nos.write(1, b'up')\nsignal.pause()\n"
ORPHAN = """
import os, sys
from chaos.forkserver import fork_server
from jangada.local.process import Command
with fork_server() as forks:
    how = Command(argv=[sys.executable, "-m", "waiting"], environ=os.environ)
    reading, writing = os.pipe()
    forked = forks.start(how, writing, [])
    os.read(reading, 2)
    print(forked.pid, flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with modules, and with an application of entry points."""
    (tmp_path / "probe.py").write_text(PROBE)
    (tmp_path / "beside.py").write_text("")
    (tmp_path / "waiting.py").write_text(WAITING)
    metadata = tmp_path / "probe-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: probe\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[probe]\nown = beside\n")
    return tmp_path


def command(folder: Path, module: str, *arguments: str, **environ: str) -> Command:
    return Command(
        argv=[sys.executable, "-m", module, *arguments],
        environ={**os.environ, "PYTHONPATH": str(folder), **environ},
        folder=folder,
        death_signal=signal.SIGKILL,
    )


def told(launch: Launch, programs: Path, **environ: str) -> tuple[type, str, str, int]:
    """How it was started, what it says of itself, its output and its exit code."""
    reading, writing = os.pipe()
    log = programs / "log"
    with log.open("wb") as output:
        how = command(programs, "probe", str(writing), "--word", **environ)
        program = launch(how, output.fileno(), [writing])
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    code = program.ended.result(PATIENCE)
    return type(program), said, log.read_text(), code


def waiting(forks: ForkServer, programs: Path) -> Child | Forked:
    reading, writing = os.pipe()
    program = forks.start(command(programs, "waiting"), writing, [])
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read(2) == b"up"
    return program


def test_a_fork_finds_what_a_started_program_finds(forks: ForkServer, programs: Path) -> None:
    """Environment, arguments, folder, files, session, imports, output and exit code."""
    started, forked = (told(how, programs, PROBE="1") for how in (start, forks.start))
    assert (started[0], forked[0]) == (Child, Forked)
    assert forked[1:] == started[1:]


def test_what_python_must_know_before_it_starts_is_really_started(
    forks: ForkServer, programs: Path
) -> None:
    assert told(forks.start, programs, LD_BIND_NOW="1")[0] is Child
    assert told(forks.start, programs, PYTHONUTF8="1")[0] is Child
    assert told(forks.start, programs, PYTHONUTF8="")[0] is Forked


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_it_as_any_program(
    forks: ForkServer, programs: Path, number: signal.Signals
) -> None:
    program = waiting(forks, programs)
    assert program.is_running
    program.send(number)
    assert program.ended.result(PATIENCE) == -number
    assert not psutil.pid_exists(program.pid)


def test_programs_end_with_the_process_that_started_them(programs: Path) -> None:
    bench = Path(__file__).parents[1] / "bench"
    folders = os.pathsep.join((str(programs), str(bench)))
    ended = subprocess.run(  # noqa: S603 - the program above
        [sys.executable, "-c", ORPHAN],
        env={**os.environ, "PYTHONPATH": folders},
        stdout=subprocess.PIPE,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    assert wait_until(lambda: not psutil.pid_exists(int(ended.stdout)), PATIENCE)


def test_a_program_is_run_to_its_end_with_streams_of_its_own(
    forks: ForkServer, programs: Path
) -> None:
    (programs / "speaking.py").write_text("import sys\nprint(input())\nsys.exit('no more')\n")
    done = forks.run(command(programs, "speaking"), "words\nand more\n")
    assert (done.returncode, done.stdout, done.stderr) == (1, "words\n", "no more\n")
