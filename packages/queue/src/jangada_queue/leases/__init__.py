"""Queues whose truth is Valkey: messages that nobody else keeps, under leases that Valkey decides.

Invariants: a message leaves the server only by an acknowledgement of the delivery that holds its
lease; one whose lease ends is handed on, and after too many losses becomes a dead letter; nothing
is dropped. `client` has the steps, `ledger` is what a worker process holds, and `keeper` the helper
process that keeps its leases whatever the worker is busy with.
"""
