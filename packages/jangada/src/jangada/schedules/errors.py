"""What can be wrong with a schedule."""

from jangada.errors import Conflict, Invalid, NotFound


class ScheduleNotFound(NotFound):
    """There is no such schedule in the caller's tenant."""

    code = "schedule.not_found"


class ScheduleExists(Conflict):
    """The tenant has a schedule of this name already."""

    code = "schedule.exists"


class TooManySchedules(Conflict):
    """The tenant has as many schedules as it may have."""

    code = "schedule.too_many"


class InvalidCron(Invalid):
    """The expression has not 5 or 6 fields that can be read, or it never matches."""

    code = "schedule.invalid_cron"


class UnknownTimezone(Invalid):
    """The time zone is none of the IANA database."""

    code = "schedule.unknown_timezone"


class KindNotSchedulable(Invalid):
    """No worker knows the kind of job, or its author doesn't let users schedule it."""

    code = "schedule.kind_not_schedulable"
