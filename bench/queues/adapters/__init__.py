"""One file per contestant: its application, its worker's command and how it is enqueued to.

Each is imported only in its contestant's environment, where `ADAPTER` is what `queues.stage` uses.
"""
