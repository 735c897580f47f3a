"""How long an end takes."""

from datetime import timedelta
from typing import Final

GRACE: Final = timedelta(seconds=1)
"""How long a cancelled handler may take to clean up before its job goes on without it."""

STUCK: Final = timedelta(seconds=5)
"""How long a process whose event loop doesn't turn may keep a job beyond its timeout."""

LAST_WORDS: Final = timedelta(seconds=5)
"""How long the endings of handed back jobs may take to be written, beyond the grace."""
