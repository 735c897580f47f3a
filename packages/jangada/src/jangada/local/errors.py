"""What can keep the local platform from starting. Each message says what to do about it."""

from jangada.errors import Conflict, Forbidden, Invalid, Unavailable


class ServerMissing(Unavailable):
    """The binaries of an embedded server are not installed."""

    code = "local.server_missing"


class ServerFailed(Unavailable):
    """A process did not start, or ended at once; the message ends with its last words."""

    code = "local.server_failed"


class PrivilegesUnsuitable(Unavailable):
    """PostgreSQL refuses to run as root, and no way around that works here."""

    code = "local.privileges_unsuitable"


class FolderInUse(Conflict):
    """Another process runs in this folder."""

    code = "local.folder_in_use"


class FolderUnusable(Forbidden):
    """The folder cannot be written, belongs to somebody else or is open to others."""

    code = "local.folder_unusable"


class PortInUse(Conflict):
    """Another program listens where the platform should."""

    code = "local.port_in_use"


class DataUnusable(Invalid):
    """The folder holds data that this version cannot run on; nothing was changed."""

    code = "local.data_unusable"
