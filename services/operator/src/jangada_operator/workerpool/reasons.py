"""The words by which a WorkerPool says what is the matter with it: a fixed set.

People and alerts look for them, and `docs/workerpool.md` explains each. A decision's own reasons
and limits are the policy's (`jangada_queue.policy.decide`).
"""

from enum import StrEnum


class Trouble(StrEnum):
    """Why a pool isn't looked after: reasons of `Ready=False`."""

    TARGET_MISSING = "TargetMissing"
    TARGET_STARTING = "TargetStarting"
    TARGET_TAKEN = "TargetTaken"
    OTHER_AUTOSCALER = "OtherAutoscaler"
    SECRET_MISSING = "SecretMissing"  # noqa: S105 - no secret
    SECRET_INVALID = "SecretInvalid"  # noqa: S105 - no secret
    INVALID_SPEC = "InvalidSpec"
    FORBIDDEN = "Forbidden"
    API_UNREACHABLE = "ApiUnreachable"
    API_REFUSED = "ApiRefused"


class State(StrEnum):
    """The other reasons of conditions, but for what limited a decision."""

    MANAGED = "Managed"
    FRESH = "Fresh"
    STALE = "Stale"
    NOT_READ = "NotRead"
    UNLIMITED = "Unlimited"
    SCALE_DOWN_BLOCKED = "ScaleDownBlocked"
    ROLLING_OUT = "RollingOut"
    PODS_NOT_STARTING = "PodsNotStarting"
    PAUSED = "Paused"
    ACTIVE = "Active"


class Happening(StrEnum):
    """Reasons of Events beside those of conditions."""

    SCALED_UP = "ScaledUp"
    SCALED_DOWN = "ScaledDown"
    CONFLICT = "Conflict"
    MISPICKED = "Mispicked"
    DRAIN_STARTED = "DrainStarted"
    DRAIN_CANCELLED = "DrainCancelled"
