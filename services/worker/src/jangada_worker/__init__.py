"""Runs Jangada's jobs: the worker processes and the dispatcher."""
