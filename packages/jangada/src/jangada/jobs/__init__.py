"""Durable jobs: rows in the caller's transaction, delivered to workers.

The protocol between PostgreSQL, Valkey, dispatcher and worker is docs/queue-protocol.md.

Invariants: no commit, no job; after the commit the job exists whatever dies. Only PostgreSQL grants
the right to run (`attempt` is the fence); a handler's database effects and its job's completion are
one transaction, so they happen once.
"""
