"""Verbs on contacts and their imports. Each acts in the caller's transaction, in its tenant."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import Select, delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from jangada import crud
from jangada.contacts.emails import normalize_email
from jangada.contacts.errors import (
    ContactExists,
    ContactInvalid,
    ContactNotFound,
    ImportNotFound,
    ImportUnderWay,
)
from jangada.contacts.models import Contact, ContactImport, ImportReject
from jangada.contacts.phones import normalize_phone
from jangada.contacts.reasons import EXPLANATIONS, Reason
from jangada.contacts.schemas import (
    ContactCreate,
    ContactFilter,
    ContactPatch,
    ImportContacts,
    ImportOptions,
)
from jangada.contacts.texts import MAX_ATTRIBUTES_CHARS, search_key
from jangada.crud import Page, PageRequest, Sort
from jangada.errors import FieldError
from jangada.files.models import File
from jangada.jobs import service as jobs
from jangada.jobs.models import FINAL_STATES, Job, is_final

NEWEST_FIRST: Final = Sort((Contact.id,), descending=True)
KEPT_AFTER_FAILURE: Final = timedelta(days=7)
"""For so long an import that failed can be tried again; then its file makes room."""


def visible(tenant_id: UUID) -> Select[Contact]:
    return select(Contact).where(Contact.tenant_id == tenant_id)


async def get_contact(session: AsyncSession, tenant_id: UUID, id: UUID) -> Contact:
    return await crud.fetch(session, visible(tenant_id), id, missing=ContactNotFound)


async def list_contacts(
    session: AsyncSession, tenant_id: UUID, filter: ContactFilter, page: PageRequest
) -> Page[Contact]:
    """The tenant's contacts, newest first."""
    bound_to = {"tenant": str(tenant_id), **filter.model_dump(mode="json")}
    scope = filter(visible(tenant_id))
    return await crud.paginate(session, scope, page, sort=NEWEST_FIRST, bound_to=bound_to)


async def create_contact(
    session: AsyncSession, tenant_id: UUID, new: ContactCreate, *, region: str
) -> Contact:
    """Raises `ContactInvalid` and `ContactExists`."""
    contact = Contact(tenant_id=tenant_id)
    return await _save(session, contact, _normalized(new.model_dump(), region))


async def update_contact(
    session: AsyncSession, tenant_id: UUID, id: UUID, changes: ContactPatch, *, region: str
) -> Contact:
    """Raises `ContactNotFound`, `ContactInvalid` and `ContactExists`."""
    contact = await crud.fetch(
        session, visible(tenant_id).with_for_update(), id, missing=ContactNotFound
    )
    values = {name: getattr(contact, name) for name in ContactPatch.model_fields}
    sent = changes.model_dump(include=changes.model_fields_set)
    if sent.get("attributes") is not None:
        sent["attributes"] = {**contact.attributes, **sent["attributes"]}
    return await _save(session, contact, _normalized(values | sent, region))


async def delete_contact(session: AsyncSession, tenant_id: UUID, id: UUID) -> None:
    """Raises `ContactNotFound`."""
    await session.delete(await get_contact(session, tenant_id, id))


async def _save(session: AsyncSession, contact: Contact, values: dict[str, Any]) -> Contact:
    """Write the values; in a savepoint, so that a refusal leaves the caller's transaction whole."""
    try:
        async with session.begin_nested():
            for name, value in values.items():
                setattr(contact, name, value)
            session.add(contact)
    except IntegrityError as error:
        raise _taken(values) from error
    return contact


def _taken(values: dict[str, Any]) -> ContactExists:
    """Only the key can be taken: the address, or the phone of a contact without one."""
    if values["email"]:
        pointer, detail = "/email", "Another contact has this e-mail address."
    else:
        pointer, detail = "/phone", "Another contact without an e-mail address has this phone."
    return ContactExists(detail, errors=[FieldError(pointer, ContactExists.code, detail)])


def _normalized(values: dict[str, Any], region: str) -> dict[str, Any]:
    """All of a contact's values in normal form, as JSON merge patch (RFC 7396) leaves them.

    Raises `ContactInvalid`.
    """
    email = normalize_email(values["email"]) if values["email"] else None
    phone = normalize_phone(values["phone"], region) if values["phone"] else None
    attributes = {name: text for name, text in (values["attributes"] or {}).items() if text}
    faults = [
        FieldError(pointer, reason, EXPLANATIONS[reason])
        for pointer, reason, is_wrong in (
            ("/email", Reason.INVALID_EMAIL, bool(values["email"]) and email is None),
            ("/phone", Reason.INVALID_PHONE, bool(values["phone"]) and phone is None),
            ("", Reason.MISSING_KEY, not values["email"] and not values["phone"]),
            ("/attributes", Reason.ATTRIBUTES_TOO_LARGE, _is_large(attributes)),
        )
        if is_wrong
    ]
    if faults:
        raise ContactInvalid("The contact can't be stored.", errors=faults)
    name = values["name"] or ""
    return {
        "name": name,
        "name_key": search_key(name),
        "email": email,
        "phone": phone,
        "company": values["company"] or "",
        "attributes": attributes,
    }


def _is_large(attributes: dict[str, Any]) -> bool:
    return len(orjson.dumps(attributes).decode()) > MAX_ATTRIBUTES_CHARS


def imports_of(tenant_id: UUID) -> Select[ContactImport]:
    return select(ContactImport).where(ContactImport.tenant_id == tenant_id)


async def get_import(session: AsyncSession, tenant_id: UUID, id: UUID) -> tuple[ContactImport, Job]:
    """The import with its job. Raises `ImportNotFound`."""
    found = await crud.fetch(session, imports_of(tenant_id), id, missing=ImportNotFound)
    return found, await jobs.get_job(session, tenant_id, id)


async def start_import(
    session: AsyncSession, file: File, options: ImportOptions, *, created_by: UUID | None = None
) -> Job:
    """The import of a stored file with its job, in the caller's transaction; they share the id."""
    await _forget_old_files(session, file.tenant_id)
    job = await jobs.enqueue(
        session,
        ImportContacts(file_id=file.id, options=options),
        tenant_id=file.tenant_id,
        created_by=created_by,
    )
    started = ContactImport(
        tenant_id=file.tenant_id, id=job.id, file_id=file.id, file_name=file.name or ""
    )
    await crud.insert(session, started)
    return job


async def get_finished_import(
    session: AsyncSession, tenant_id: UUID, id: UUID, *, mend: str
) -> tuple[ContactImport, Job]:
    """An import that is over. Raises `ImportNotFound`, and `ImportUnderWay` with how to mend it."""
    found, job = await get_import(session, tenant_id, id)
    if job.state not in FINAL_STATES:
        raise ImportUnderWay(f"Import {id} is {job.state}; {mend}.")
    return found, job


async def delete_import(session: AsyncSession, tenant_id: UUID, id: UUID) -> None:
    """Delete an import that is over, with its rejected rows and what is left of its file.

    Contacts stay, and so does the job, for as long as other finished ones. Raises `ImportNotFound`
    and `ImportUnderWay`.
    """
    found, job = await get_finished_import(session, tenant_id, id, mend="cancel it first")
    if found.file_id is not None:
        await session.execute(
            delete(File).where(File.tenant_id == tenant_id, File.id == found.file_id)
        )
    job.kept = False
    await session.delete(found)


async def list_rejects(
    session: AsyncSession, tenant_id: UUID, import_id: UUID, *, after_line: int, limit: int
) -> Sequence[ImportReject]:
    """The rejected rows of an import behind a line, in file order."""
    rejects = await session.scalars(
        select(ImportReject)
        .where(
            ImportReject.tenant_id == tenant_id,
            ImportReject.import_id == import_id,
            ImportReject.line > after_line,
        )
        .order_by(ImportReject.line)
        .limit(limit)
    )
    return rejects.all()


async def _forget_old_files(session: AsyncSession, tenant_id: UUID) -> None:
    """Delete the files of imports that failed long ago, so that they don't fill the quota."""
    old = (
        select(ContactImport.file_id)
        .join(Job, (Job.tenant_id == ContactImport.tenant_id) & (Job.id == ContactImport.id))
        .where(
            ContactImport.tenant_id == tenant_id,
            ContactImport.file_id.is_not(None),
            is_final(),
            Job.finished_at < func.now() - KEPT_AFTER_FAILURE,
        )
    )
    await session.execute(delete(File).where(File.tenant_id == tenant_id, File.id.in_(old)))
