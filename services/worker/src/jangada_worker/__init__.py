"""Runs Jangada's jobs: the worker processes and the dispatcher.

`parent` supervises child processes and beats PostgreSQL for them; `child` claims, is granted and
runs jobs; `executor` is the way of one job; `dispatcher` publishes what is due and sweeps what was
lost. The other modules here are the handlers of the features, found by `discovery`.
"""
