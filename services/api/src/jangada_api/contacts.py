"""Contacts over HTTP: lists, one contact, and all of them as a file."""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Body, Query, Response
from fastapi.openapi.models import Example
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from jangada.contacts import service
from jangada.contacts.errors import (
    ContactExists,
    ContactInvalid,
    ContactNotFound,
    TooManyAttributes,
)
from jangada.contacts.exporting import export_contacts, list_attribute_names
from jangada.contacts.schemas import ContactCreate, ContactFilter, ContactPatch
from jangada.crud import InvalidCursor
from jangada_api.deps import PrincipalDep, ReadSessionDep, RuntimeDep, SessionDep
from jangada_api.listing import Listing, PageDep
from jangada_api.openapi import documented
from jangada_api.routing import api_router

router = api_router(tags=["contacts"])

EXAMPLE: Final[JsonDict] = {
    "id": "0198f3f0-7c1e-7a52-9d52-7d5d7bcbf4a1",
    "name": "Ana Lima",
    "email": "ana.lima@example.com",
    "phone": "+5511987654321",
    "company": "Padaria Estrela do Mar",
    "attributes": {"Notes": "prefers mail"},
    "created_at": "2026-03-01T12:00:00Z",
    "updated_at": "2026-03-01T12:00:00Z",
}
CREATE_EXAMPLES: Final[dict[str, Example]] = {
    "a contact": {
        "value": {
            "name": "Ana Lima",
            "email": "Ana.Lima@example.com",
            "phone": "(11) 98765-4321",
            "company": "Padaria Estrela do Mar",
            "attributes": {"Notes": "prefers mail"},
        }
    }
}
PATCH_EXAMPLES: Final[dict[str, Example]] = {
    "a new phone, one attribute less": {
        "value": {"phone": "+55 21 3333-4444", "attributes": {"Notes": None}}
    }
}
EXPORT_EXAMPLE: Final = (
    "name,email,phone,company,Notes\r\n"
    "Ana Lima,ana.lima@example.com,+5511987654321,Padaria Estrela do Mar,prefers mail\r\n"
)
CSV: Final = "text/csv; charset=utf-8"


class ContactOut(BaseModel):
    """A contact."""

    model_config = ConfigDict(from_attributes=True, json_schema_extra={"examples": [EXAMPLE]})

    id: UUID
    name: str
    email: str | None = Field(description="In lower case; unique among your contacts.")
    phone: str | None = Field(description="In E.164.")
    company: str
    attributes: dict[str, str] = Field(description="Whatever else is known, by its name.")
    created_at: datetime
    updated_at: datetime


def csv_response(name: str, example: str) -> Mapping[int | str, dict[str, Any]]:
    """`responses=` of a route that answers a CSV file."""
    header = {
        "description": "Saves the answer as a file.",
        "schema": {"type": "string"},
        "example": f'attachment; filename="{name}"',
    }
    content = {"text/csv": {"schema": {"type": "string"}, "example": example}}
    return {
        200: {
            "description": "The file.",
            "content": content,
            "headers": {"Content-Disposition": header},
        }
    }


def as_file(name: str, parts: AsyncIterator[bytes]) -> StreamingResponse:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(parts, media_type=CSV, headers=headers)


@router.get("/v1/contacts", responses=documented(InvalidCursor))
async def list_contacts(
    session: ReadSessionDep,
    principal: PrincipalDep,
    page: PageDep,
    filter: Annotated[ContactFilter, Query()],
) -> Listing[ContactOut]:
    """List contacts, newest first; with `q` those whose name, e-mail or phone begins so."""
    found = await service.list_contacts(session, principal.tenant_id, filter, page)
    return Listing[ContactOut].of(found, ContactOut.model_validate)


@router.post("/v1/contacts", status_code=201, responses=documented(ContactInvalid, ContactExists))
async def create_contact(
    *,
    session: SessionDep,
    principal: PrincipalDep,
    runtime: RuntimeDep,
    response: Response,
    body: Annotated[ContactCreate, Body(openapi_examples=CREATE_EXAMPLES)],
) -> ContactOut:
    """Create a contact. E-mail address and phone are stored in their normal forms."""
    region = runtime.settings.contacts.default_region
    contact = await service.create_contact(session, principal.tenant_id, body, region=region)
    response.headers["Location"] = f"/v1/contacts/{contact.id}"
    return ContactOut.model_validate(contact)


@router.get(
    "/v1/contacts:export",
    response_class=StreamingResponse,
    responses={**csv_response("contacts.csv", EXPORT_EXAMPLE), **documented(TooManyAttributes)},
)
async def export(
    principal: PrincipalDep,
    runtime: RuntimeDep,
    filter: Annotated[ContactFilter, Query()],
) -> StreamingResponse:
    """Export contacts as CSV: UTF-8, commas, one column per attribute.

    Cells that a spreadsheet would run as a formula have an apostrophe in front. Importing the file
    again changes nothing.
    """
    database, tenant_id = runtime.database, principal.tenant_id
    attributes = await list_attribute_names(
        database, tenant_id, filter, max_columns=runtime.settings.contacts.max_columns
    )
    return as_file("contacts.csv", export_contacts(database, tenant_id, filter, attributes))


@router.get("/v1/contacts/{contact_id:uuid}", responses=documented(ContactNotFound))
async def get_contact(
    session: ReadSessionDep, principal: PrincipalDep, contact_id: UUID
) -> ContactOut:
    """Read one contact."""
    found = await service.get_contact(session, principal.tenant_id, contact_id)
    return ContactOut.model_validate(found)


@router.patch(
    "/v1/contacts/{contact_id:uuid}",
    responses=documented(ContactNotFound, ContactInvalid, ContactExists),
)
async def update_contact(
    *,
    session: SessionDep,
    principal: PrincipalDep,
    runtime: RuntimeDep,
    contact_id: UUID,
    body: Annotated[ContactPatch, Body(openapi_examples=PATCH_EXAMPLES)],
) -> ContactOut:
    """Change a contact (JSON merge patch): null takes a value away."""
    region = runtime.settings.contacts.default_region
    contact = await service.update_contact(
        session, principal.tenant_id, contact_id, body, region=region
    )
    return ContactOut.model_validate(contact)


@router.delete(
    "/v1/contacts/{contact_id:uuid}", status_code=204, responses=documented(ContactNotFound)
)
async def delete_contact(session: SessionDep, principal: PrincipalDep, contact_id: UUID) -> None:
    """Delete a contact."""
    await service.delete_contact(session, principal.tenant_id, contact_id)
