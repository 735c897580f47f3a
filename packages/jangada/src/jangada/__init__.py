"""The domain of Jangada: all behaviour of the platform, and no delivery mechanism.

The kernel (`config`, `errors`, `db`, `crud`, `outbox`, `telemetry`, `runtime`) lies below the features
(`tenants`, `jobs`, `accounts`, `files`, `contacts`); the order is a contract in the workspace's pyproject.toml.
"""
