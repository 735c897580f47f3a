"""What an import makes of a file, of what is there already, and of both together."""

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Importer

pytestmark = pytest.mark.anyio


async def test_a_clean_file_becomes_contacts(importer: "Importer") -> None:
    counts = await importer.counts(
        "Name,E-mail,Phone,Company,Notes\n"
        "Ana Lima,Ana@Example.com,(11) 98765-4321,Acme,vip\n"
        "Rui,,+351 912 345 678,,\n"
    )
    assert counts == {"inserted": 2}
    assert await importer.shown() == {
        ("Ana Lima", "ana@example.com", "+5511987654321"),
        ("Rui", None, "+351912345678"),
    }
