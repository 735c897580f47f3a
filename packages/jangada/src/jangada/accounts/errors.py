"""What can go wrong with accounts. Details never hold what the caller sent."""

from jangada.errors import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    RateLimited,
    Unauthenticated,
    Unavailable,
)


class EmailInvalid(Invalid):
    """Not an e-mail address that mail can be sent to."""

    code = "account.email_invalid"


class EmailTaken(Conflict):
    """The e-mail address, in whatever spelling, has an account."""

    code = "account.email_taken"


class PasswordRefused(Invalid):
    """The password policy refuses a new password; `errors` names each reason."""

    code = "account.password_refused"


class PasswordWrong(Forbidden):
    """A signed-in person did not give the current password that the action asks for.

    Not `Unauthenticated`: the token is good, and clients answer 401 with a refresh.
    """

    code = "account.password_wrong"


class SignInFailed(Unauthenticated):
    """Unknown e-mail address or wrong password; which of the two is not said."""

    code = "auth.sign_in_failed"


class SignInThrottled(RateLimited):
    """Too many failures for this account or from this client address."""

    code = "auth.throttled"


class TokenMissing(Unauthenticated):
    """The request has no access token."""

    code = "auth.token_missing"


class TokenInvalid(Unauthenticated):
    """The access token is forged, malformed, foreign or not an access token."""

    code = "auth.token_invalid"


class TokenExpired(Unauthenticated):
    """The access token was ours and good; refresh the session."""

    code = "auth.token_expired"


class SessionEnded(Unauthenticated):
    """The session that the access token belongs to has ended; sign in again."""

    code = "auth.session_ended"


class RefreshRefused(Unauthenticated):
    """The refresh token is unknown, too old, used up, or its session has ended; sign in again."""

    code = "auth.refresh_refused"


class SessionNotFound(NotFound):
    """The caller has no such session, or it has ended."""

    code = "session.not_found"


class HashingBusy(Unavailable):
    """More sign-ins wait, in all or for one account, than a process bears."""

    code = "auth.busy"


class MasterKeyMismatch(Invalid):
    """The signing keys in the database were encrypted under another master key."""

    code = "auth.master_key_mismatch"
