"""Which revisions this code has, without Alembic."""

from pathlib import Path

VERSIONS = Path(__file__).parent / "versions"


def head() -> str:
    """The revision that this code needs: the last of a line, read from the names of the files.

    Alembic would say the same and takes 0.2 s to import, in every process that asks for readiness.
    """
    return max(path.name for path in VERSIONS.glob("[0-9]*.py"))[:4]
