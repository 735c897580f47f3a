"""What can be wrong with a job."""

from jangada.errors import Conflict, Invalid, NotFound, Unavailable


class JobNotFound(NotFound):
    """There is no such job in the caller's tenant."""

    code = "job.not_found"


class JobTooLarge(Invalid):
    """Arguments (64 KiB), metadata (16 KiB) or result (256 KiB) are too large for a row."""

    code = "job.too_large"


class JobNotStorable(Invalid):
    """Arguments, metadata or result hold what PostgreSQL's JSON cannot, or are nested too deep."""

    code = "job.not_storable"


class ArgumentsNotUnderstood(Unavailable):
    """A worker's release can't read the job's arguments; another may, so it is tried again."""

    code = "job.arguments_not_understood"


class InvalidJob(Invalid):
    """A property of the job, such as its priority, has a value that none can have."""

    code = "job.invalid"


class InvalidConcurrencyKey(Invalid):
    """A concurrency key has at most 200 characters, none of them NUL."""

    code = "job.invalid_concurrency_key"


class JobAlreadyFinished(Conflict):
    """A finished job cannot be cancelled."""

    code = "job.already_finished"


class JobNotRetryable(Conflict):
    """Only a job that is discarded, cancelled or waiting can be tried again."""

    code = "job.not_retryable"


class UnknownJobKind(Invalid):
    """No handler of this kind is registered here."""

    code = "job.unknown_kind"


class LeaseLost(Conflict):
    """Another attempt owns the job now; this attempt's transaction must roll back."""

    code = "job.lease_lost"
