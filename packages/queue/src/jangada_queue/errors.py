"""What can go wrong between us and Valkey: it is absent, or not to be trusted with a queue."""


class QueueUnavailable(Exception):
    """Valkey didn't answer within the deadline, or refused the connection or the command.

    The command may or may not have happened. Every command of the protocol can be sent again.
    """


class QueueRefused(QueueUnavailable):
    """Valkey answers, and won't do this: a right lacks, or something foreign is in a key's place.

    It lasts until somebody mends it. Of another queue the same may be done.
    """


class UnsafeServer(Exception):
    """The server's configuration would lose messages unseen, for example by evicting keys."""
