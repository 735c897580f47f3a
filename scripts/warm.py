"""Imports what the platform and its tests import, so that Python keeps the compiled code.

Machines that set PYTHONDONTWRITEBYTECODE would otherwise compile a few hundred thousand lines at
every start of every process: six seconds each on one core. Compiling all that is installed would
take minutes instead. It is only about speed, so whatever can't be imported is passed over.
"""

import contextlib
import importlib
import pkgutil

ROOTS = ("jangada", "jangada_queue", "jangada_api", "jangada_worker", "jangada_operator")
TOOLS = (
    *("pytest", "xdist.plugin", "xdist.remote", "pytest_cov.plugin", "pytest_timeout", "coverage"),
    *("pytest_randomly", "hypothesis.strategies", "_hypothesis_pytestplugin", "moto.server"),
    *("importlinter.cli", "openapi_spec_validator"),
)

for tool in TOOLS:
    with contextlib.suppress(Exception):
        importlib.import_module(tool)
for root in ROOTS:
    with contextlib.suppress(Exception):
        package = importlib.import_module(root)
        for module in pkgutil.walk_packages(package.__path__, f"{root}.", onerror=lambda _: None):
            if not module.name.endswith((".__main__", ".env")) and ".versions" not in module.name:
                with contextlib.suppress(Exception):
                    importlib.import_module(module.name)
