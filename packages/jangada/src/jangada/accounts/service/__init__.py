"""The verbs on accounts.

Those that compare a password take the open `Accounts` and make their own transactions: a hash takes
tens of milliseconds and a place in a queue, and no connection is held meanwhile. Those that end a
session do so too, since this process must know of the end once it is committed and not before.
The others take the caller's session, as verbs do everywhere.
"""
