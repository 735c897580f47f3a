"""What can go wrong between a command and a server."""

from jangada.errors import Conflict, Invalid, Unauthenticated, Unavailable


class NotSignedIn(Unauthenticated):
    """No session for the server is kept here, or it has ended: `jangada login` makes one."""

    code = "client.not_signed_in"


class ServerInvalid(Invalid):
    """The server's address is none, is missing, or would send secrets unencrypted."""

    code = "client.server_invalid"


class ServerUnavailable(Unavailable):
    """The server is away or overloaded, or something between answers in its place."""

    code = "client.server_unavailable"


class ServerRefused(Conflict):
    """The server answered with a problem document; its own code is in the message."""

    code = "client.server_refused"


class FileUnreadable(Invalid):
    """The file that is to be sent cannot be opened."""

    code = "client.file_unreadable"


class SessionBusy(Unavailable):
    """Another command holds the session's lock and does not end."""

    code = "client.session_busy"


class CheckFailed(Conflict):
    """The server can't do something that `jangada check` asked of it."""

    code = "client.check_failed"
