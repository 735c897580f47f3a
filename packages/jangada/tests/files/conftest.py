"""An S3 server: moto's, in this process."""

from collections.abc import Iterator
from typing import Any

import pytest

from jangada.config import StorageSettings


@pytest.fixture(scope="session")
def s3_bucket() -> str:
    return "jangada-tests"


@pytest.fixture(scope="session")
def s3(s3_bucket: str) -> Iterator[Any]:
    """A client of an S3 server, with a bucket."""
    server_module = pytest.importorskip("moto.server", reason="moto is absent: S3 is NOT tested")
    boto3 = pytest.importorskip("boto3", reason="moto is absent: S3 is NOT tested")
    server = server_module.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "s3",
        endpoint_url=f"http://{host}:{port}",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket=s3_bucket)
    yield client
    client.close()
    server.stop()


@pytest.fixture
def s3_storage(s3: Any, s3_bucket: str) -> StorageSettings:  # noqa: ANN401 - boto3 has no types
    return StorageSettings(
        url=f"s3://{s3_bucket}/files",
        options={
            "endpoint": s3.meta.endpoint_url,
            "region": "us-east-1",
            "access_key_id": "key",
            "secret_access_key": "secret",
            "allow_http": "true",
        },
    )
