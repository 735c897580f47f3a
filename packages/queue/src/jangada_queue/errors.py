"""What can go wrong between us and Valkey: it is absent, or not to be trusted with a queue."""


class QueueUnavailable(Exception):
    """Valkey didn't answer within the deadline, or refused the connection or the command.

    The command may or may not have happened. Every command of the protocol can be sent again.
    """


class UnsafeServer(Exception):
    """The server's configuration would lose messages unseen, for example by evicting keys."""
