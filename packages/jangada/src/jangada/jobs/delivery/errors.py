"""How an attempt can fail by itself."""

from jangada.errors import Unavailable


class JobTimedOut(Unavailable):
    """The attempt took longer than its kind allows; it is tried again."""

    code = "job.timed_out"


class JobInterrupted(Unavailable):
    """The attempt was cancelled from within, without anybody having asked for it."""

    code = "job.interrupted"
