"""What breaks when processes and servers die, for stock taskiq-redis and for ours, side by side.

Scenarios E1 to E15 show what is known to go wrong with queues on streams; storms do the same by
the hundred. Whatever a job does it writes to a ledger outside of everything that is tested.
"""
