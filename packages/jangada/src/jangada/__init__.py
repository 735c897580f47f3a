"""The domain of Jangada: all behaviour of the platform, and no delivery mechanism.

The kernel (`config`, `errors`, `telemetry`, `db`, `crud`, `runtime`) lies below the features
(`tenants`, `jobs`, `accounts`, `files`, `contacts`); their order is a contract in the workspace's
pyproject.toml.
"""
