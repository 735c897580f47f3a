"""The data folder of `jangada up`: where everything of one local platform lies, and nothing else.

    .jangada/
    ├── platform.json   says that the folder is ours, and in which format
    ├── lock            held while a platform runs in it
    ├── postgres/  valkey/  files/  logs/
    ├── master-key      encrypts the signing keys in the database
    ├── demo.json       the demo sign-in
    └── environment     settings to reach the running platform with other commands

The folder is closed to everybody but its owner.
"""

import json
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from jangada.local.errors import DataUnusable, FolderUnusable
from jangada.local.folders import Folder, is_own_folder, write_private

FORMAT = 1

MARKER = "platform.json"
DEMO = "demo.json"
ENVIRONMENT = "environment"
MASTER_KEY = "master-key"
FOLDERS = ("postgres", "valkey", "files", "logs")
OURS = frozenset({*FOLDERS, MARKER, DEMO, ENVIRONMENT, MASTER_KEY, "lock"})


DEMO_EMAIL = "demo@example.com"


@dataclass(frozen=True)
class Demo:
    """The demo sign-in of a folder. It is written down before the account is made."""

    path: Path
    email: str
    password: str

    def keep(self, *, is_made: bool = True) -> None:
        sign_in = {"email": self.email, "password": self.password, "is_made": is_made}
        write_private(self.path, json.dumps(sign_in, indent=2) + "\n")


class DataFolder:
    """One platform's folder, held from `open` to `close` by one process."""

    def __init__(self, path: Path) -> None:
        self._folder = Folder(path)
        self.path = self._folder.path

    def open(self) -> Self:
        """Hold the folder, making it if need be. Raises rather than touch one that isn't ours."""
        _adopt(self.path)
        self._folder.open()
        try:
            self._check_format()
            write_private(self.path / MARKER, json.dumps({"format": FORMAT}) + "\n")
            (self.path / "logs").mkdir(mode=0o700, exist_ok=True)
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        self._folder.close()

    def erase(self) -> None:
        """Delete what is ours in the folder; what somebody else put there stays."""
        for name in (*FOLDERS, DEMO, ENVIRONMENT, MASTER_KEY):
            path = self.path / name
            if is_own_folder(path):
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        (self.path / "logs").mkdir(mode=0o700)

    @property
    def mark(self) -> str:
        """What tells this folder from all others on the machine, under whatever path."""
        found = self.path.stat()
        return f"{found.st_dev}:{found.st_ino}"

    def log(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"

    def master_key(self) -> str:
        return self._folder.secret(MASTER_KEY)

    def new_demo(self) -> Demo | None:
        """The demo sign-in, if its account is yet to be made.

        A run that was killed in between leaves its password to the next; an account that the
        person deleted is not made again.
        """
        path = self.path / DEMO
        with suppress(FileNotFoundError, ValueError, TypeError, KeyError):
            found = json.loads(path.read_text(encoding="utf-8"))
            demo = Demo(path, found["email"], found["password"])
            return None if found["is_made"] else demo
        demo = Demo(path, DEMO_EMAIL, secrets.token_urlsafe(18))
        demo.keep(is_made=False)
        return demo

    def write_environment(self, settings: Mapping[str, str]) -> None:
        """Leave what `set -a; . .jangada/environment` needs for other commands; holds secrets."""
        lines = [f"{key}='{value.replace("'", "'\\''")}'" for key, value in settings.items()]
        write_private(self.path / ENVIRONMENT, "\n".join(lines) + "\n")

    def _check_format(self) -> None:
        with suppress(FileNotFoundError, ValueError, TypeError, AttributeError):
            found = json.loads((self.path / MARKER).read_text(encoding="utf-8")).get("format")
            if found != FORMAT:
                raise DataUnusable(
                    f"The folder {self.path} was made by another release (format {found}, this "
                    f"one needs {FORMAT}). Nothing was changed."
                )


def _adopt(path: Path) -> None:
    """Close an empty folder of our own; refuse one with other things in it."""
    try:
        names = {entry.name for entry in path.iterdir()}
    except FileNotFoundError:
        return
    except OSError as error:
        raise FolderUnusable(f"The folder {path} cannot be read: {error.strerror}.") from error
    if MARKER not in names and any(name not in OURS for name in names if name[0] != "."):
        raise FolderUnusable(
            f"The folder {path} holds other things than a platform's data. Nothing was changed: "
            "choose an empty or a new one."
        )
    if not names and is_own_folder(path):
        path.chmod(0o700)
