"""How a handler ends other than by returning: outcomes as data that it raises."""

from datetime import timedelta


class Outcome(Exception):
    """The root of the outcomes; not errors, so they are not logged as such."""


class Snooze(Outcome):
    """Run again after `delay`; it does not count against `max_attempts`."""

    def __init__(self, delay: timedelta) -> None:
        super().__init__(f"snooze for {delay}")
        self.delay = delay


class Discard(Outcome):
    """Do not try again: the job becomes `discarded` with this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Cancel(Outcome):
    """Stop: the job becomes `cancelled` with this reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
