"""The documentation pages work offline: everything that they load is here."""

import re

import httpx
import pytest

from jangada_api.pages import POLICY

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_a_page_loads_only_what_is_served_here(client: httpx.AsyncClient, path: str) -> None:
    page = await client.get(path)
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"] == POLICY
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert assets
    for asset in assets:
        assert asset.startswith("static/")
        found = await client.get(f"/{asset}")
        assert found.status_code == 200
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.headers["cache-control"] == "public, max-age=3600"
    assert not re.search(r"<script>|style=|onload=", page.text)


async def test_the_licences_of_the_vendored_files_are_shipped(client: httpx.AsyncClient) -> None:
    for name in ("swagger-ui.LICENSE", "redoc.LICENSE", "swagger-ui.NOTICE"):
        assert (await client.get(f"/static/{name}")).status_code == 200
