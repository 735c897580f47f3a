"""The operator: worker pools follow their queues, and no running job is ever interrupted.

It knows nothing of the domain, so it serves any taskiq application on `jangada_queue`.
"""
