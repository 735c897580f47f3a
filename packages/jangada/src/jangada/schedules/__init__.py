"""Schedules: jobs of a tenant that are enqueued by cron expressions in a time zone.

Invariants: a fire and its job are one transaction under the lock of the schedule's row, so each
fire enqueues exactly one job with any number of dispatchers; PostgreSQL's clock says when.
"""
