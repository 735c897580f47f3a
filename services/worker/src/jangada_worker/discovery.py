"""Which jobs this worker can run: every handler of the platform and of installed applications."""

import pkgutil
from importlib import import_module
from importlib.metadata import entry_points

import jangada_worker
from jangada.jobs import registry

GROUP = "jangada.handlers"


def discover() -> frozenset[str]:
    """Import all handlers and answer the kinds they handle.

    They are registered by being imported: the modules of this package (one per feature), and those
    that entry points of the group `jangada.handlers` name.
    """
    import_platform()
    for entry in entry_points(group=GROUP):
        entry.load()
    return registry.kinds()


def import_platform() -> None:
    """Import the platform's own handlers, which do nothing else by being imported."""
    for module in pkgutil.iter_modules(jangada_worker.__path__):
        if not module.ispkg and module.name != "testing":
            import_module(f"{jangada_worker.__name__}.{module.name}")
