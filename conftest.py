import pytest

pytest_plugins = ["jangada.testing"]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
