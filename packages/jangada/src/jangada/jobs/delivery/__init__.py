"""The SQL side of delivery: dispatch, grant, beat, finish and sweep (docs/queue-protocol.md).

All of it speaks psycopg on a direct connection in system scope, because it works on every tenant's
jobs. Guarantees: PostgreSQL alone grants the right to run; `attempt` is the fence of everything
that follows; each statement takes many rows at once; none depends on an application's clock.
"""
