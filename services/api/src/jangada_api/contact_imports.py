"""Imports of contact files over HTTP: sending a file, watching it, fetching what was rejected.

Sign-in, media type, announced length and quota are checked before a byte of a file is asked for;
the file then streams to the store, and its row, the import and the job are one transaction.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Depends, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from jangada.accounts.runtime import Accounts
from jangada.accounts.schemas import Principal
from jangada.contacts import service
from jangada.contacts.errors import (
    EmptyFile,
    ImportNotFound,
    ImportUnderWay,
    NoHeader,
    NotText,
    TooManyColumns,
    UnbalancedQuote,
    Undecodable,
    UnknownDelimiter,
    UnknownEncoding,
    UnknownMapping,
    UnknownRegion,
)
from jangada.contacts.exporting import export_rejects
from jangada.contacts.importing import reading_options
from jangada.contacts.models import ContactImport
from jangada.contacts.previewing import SAMPLE_BYTES, Preview, preview
from jangada.contacts.reading.columns import Field as ContactField
from jangada.contacts.reasons import Reason
from jangada.contacts.schemas import ImportContacts, ImportOptions, Statistics
from jangada.files.errors import (
    FileTooLarge,
    StorageQuotaExceeded,
    StorageUnavailable,
    TooManyUploads,
    UploadLost,
    UploadsBusy,
)
from jangada.files.schemas import Incoming
from jangada.files.uploads import receive
from jangada.jobs.models import JobState
from jangada_api.contacts import as_file, csv_response
from jangada_api.deps import AccountsDep, PrincipalDep, ReadSessionDep, RuntimeDep, SessionDep
from jangada_api.import_options import ImportOptionsDep
from jangada_api.jobs import JobFailure, JobOut, JobProgress, read_job_now
from jangada_api.openapi import documented
from jangada_api.routing import api_router
from jangada_api.uploads import FORM, REQUEST_BODY, IncomingDep, UploadMalformed

router = api_router(tags=["contacts"])

FILE_EXAMPLE: Final = (
    "Nome;E-mail;Telefone;Empresa\r\n"
    "Ana Lima;ana.lima@example.com;(11) 98765-4321;Padaria Estrela do Mar\r\n"
)
FORM_EXAMPLE: Final[JsonDict] = {"file": FILE_EXAMPLE}
REJECTS_EXAMPLE: Final = (
    "_line,_column,_reason,Nome,E-mail,Telefone\r\n"
    "4,E-mail,invalid_email,Rui Sá,rui.sa at example.com,\r\n"
)
STATISTICS_EXAMPLE: Final[JsonDict] = {
    "rows": 1000,
    "inserted": 900,
    "updated": 40,
    "unchanged": 10,
    "skipped": 0,
    "duplicates": 30,
    "rejected": 20,
    "rejected_by_reason": {"invalid_email": 18, "missing_key": 2},
    "seconds": 0.214,
}
OPTIONS_EXAMPLE: Final[JsonDict] = {
    "delimiter": None,
    "encoding": None,
    "mapping": None,
    "default_region": "BR",
    "on_conflict": "update",
    "validate_only": False,
}
IMPORT_EXAMPLE: Final[JsonDict] = {
    "id": "0198f3f0-7c1e-7a52-9d52-7d5d7bcbf4a1",
    "file_name": "contacts.csv",
    "state": "completed",
    "progress": {"done": 1000, "total": 1000},
    "statistics": STATISTICS_EXAMPLE,
    "errors": [],
    "encoding": "windows-1252",
    "delimiter": ";",
    "options": OPTIONS_EXAMPLE,
    "created_at": "2026-03-01T12:00:00Z",
    "started_at": "2026-03-01T12:00:01Z",
    "finished_at": "2026-03-01T12:00:02Z",
}
PREVIEW_EXAMPLE: Final[JsonDict] = {
    "encoding": "windows-1252",
    "delimiter": ";",
    "columns": [
        {"name": "Nome", "field": "name"},
        {"name": "E-mail", "field": "email"},
        {"name": "Aniversário", "field": "attribute"},
    ],
    "rows": [
        {"line": 2, "cells": ["Ana Lima", "ana.lima@example.com", "3/1"]},
        {"line": 3, "cells": ["Rui Sá", "rui.sa at example.com", ""]},
    ],
    "rejects": [{"line": 3, "column": "E-mail", "reason": "invalid_email"}],
    "has_more": False,
}


def _with_examples(body: Mapping[str, Any]) -> dict[str, Any]:
    """The upload's request body with an example of each form of it."""
    request = body["requestBody"]
    examples = {"text/csv": FILE_EXAMPLE, FORM: FORM_EXAMPLE}
    content = {
        kind: {**found, "example": examples[kind]} for kind, found in request["content"].items()
    }
    return {"requestBody": {**request, "content": content}}


FILE_BODY: Final = _with_examples(REQUEST_BODY)
OPTION_ERRORS: Final = (UnknownDelimiter, UnknownEncoding, UnknownMapping, UnknownRegion)


def example(value: JsonDict) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [value]})


class StatisticsOut(Statistics):
    """What became of the rows: `rows` is the sum of the six counts after it."""

    model_config = example(STATISTICS_EXAMPLE)


class ImportOut(BaseModel):
    """An import. Its id is its job's."""

    model_config = example(IMPORT_EXAMPLE)

    id: UUID
    file_name: str
    state: JobState
    progress: JobProgress | None = Field(description="Rows; the total is a guess while it runs.")
    statistics: StatisticsOut | None = Field(description="Null until it is completed.")
    errors: list[JobFailure] = Field(description="Why it failed.")
    encoding: str | None = Field(description="What the file was read as.")
    delimiter: str | None = Field(description="What stands between its cells.")
    options: ImportOptions
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class ColumnOut(BaseModel):
    """A column, and what it is taken for."""

    name: str
    field: ContactField


class RowOut(BaseModel):
    """A row as it stands in the file."""

    line: int
    cells: list[str]


class RejectOut(BaseModel):
    """What is wrong with a row."""

    line: int
    column: str
    reason: Reason


class PreviewOut(BaseModel):
    """What an import would make of the file."""

    model_config = example(PREVIEW_EXAMPLE)

    encoding: str
    delimiter: str
    columns: list[ColumnOut]
    rows: list[RowOut] = Field(description="The first rows.")
    rejects: list[RejectOut] = Field(description="Those of them that would be rejected.")
    has_more: bool = Field(
        description="Whether the file goes on: what follows isn't looked at, and may be wrong, too."
    )


def read_import(found: ContactImport, job: JobOut, args: Mapping[str, Any]) -> ImportOut:
    return ImportOut(
        id=found.id,
        file_name=found.file_name,
        state=job.state,
        progress=job.progress,
        statistics=None if job.result is None else StatisticsOut.model_validate(job.result),
        errors=job.errors,
        encoding=found.encoding,
        delimiter=found.delimiter,
        options=ImportContacts.model_validate(args).options,
        created_at=found.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def read_preview(found: Preview) -> PreviewOut:
    lines = zip(found.first.lines, found.first.rows, strict=True)
    return PreviewOut(
        encoding=found.encoding,
        delimiter=found.delimiter,
        columns=[ColumnOut(name=name, field=field) for name, field in found.columns],
        rows=[RowOut(line=line, cells=cells) for line, cells in lines],
        rejects=[
            RejectOut(line=reject.line, column=reject.column, reason=reject.reason)
            for reject in found.rejects
        ],
        has_more=found.has_more,
    )


@router.post(
    "/v1/contacts/imports",
    status_code=202,
    openapi_extra=FILE_BODY,
    responses=documented(
        *OPTION_ERRORS,
        UploadMalformed,
        FileTooLarge,
        StorageQuotaExceeded,
        TooManyUploads,
        UploadsBusy,
        StorageUnavailable,
    ),
)
async def start_import(
    *,
    principal: PrincipalDep,
    options: ImportOptionsDep,
    incoming: IncomingDep,
    accounts: AccountsDep,
    runtime: RuntimeDep,
    response: Response,
) -> JobOut:
    """Import a contact file: send it as the form field `file`, or as it is.

    Answers the job as soon as the file is stored; follow it by `/v1/jobs/{id}/events`. Where the
    session ended meanwhile, more than a second ago, nothing is imported.
    """
    async with (
        _blaming_the_session(accounts, principal),
        receive(runtime, principal.tenant_id, incoming, created_by=principal.user_id) as received,
    ):
        await accounts.revocations.ensure_live(principal)
        async with runtime.database.transaction(principal.tenant_id) as session:
            file = await received.finish(session)
            job = await service.start_import(session, file, options, created_by=principal.user_id)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return await read_job_now(runtime, job)


@asynccontextmanager
async def _blaming_the_session(accounts: Accounts, principal: Principal) -> AsyncIterator[None]:
    """What an erased account was sending is swept away; that is no fault of the storage."""
    try:
        yield
    except (StorageUnavailable, UploadLost):
        await accounts.revocations.ensure_live(principal)
        raise


@router.post(
    "/v1/contacts/imports:preview",
    openapi_extra=FILE_BODY,
    responses=documented(
        *OPTION_ERRORS,
        UploadMalformed,
        EmptyFile,
        NotText,
        NoHeader,
        TooManyColumns,
        Undecodable,
        UnbalancedQuote,
    ),
)
async def preview_import(
    _principal: PrincipalDep,
    options: ImportOptionsDep,
    incoming: IncomingDep,
    runtime: RuntimeDep,
) -> PreviewOut:
    """See what an import would make of a file: its dialect, its columns and its first rows.

    Nothing is stored. The first 256 KiB of a file suffice.
    """
    sample, is_whole = await _sample(incoming)
    chosen = reading_options(options, runtime.settings.contacts)
    return read_preview(await asyncio.to_thread(preview, sample, chosen, is_whole=is_whole))


async def _sample(incoming: Incoming) -> tuple[bytes, bool]:
    """The beginning of the file; the rest is read too, as clients expect, and dropped."""
    sample, size = bytearray(), 0
    async for chunk in incoming.chunks():
        view = memoryview(chunk)
        size += view.nbytes
        sample += view[: max(0, SAMPLE_BYTES - len(sample))]
    return bytes(sample), size == len(sample)


@router.get("/v1/contacts/imports/{import_id:uuid}", responses=documented(ImportNotFound))
async def get_import(principal: PrincipalDep, runtime: RuntimeDep, import_id: UUID) -> ImportOut:
    """Read one import: state, progress, statistics and errors."""
    async with runtime.database.read(principal.tenant_id) as session:
        found, job = await service.get_import(session, principal.tenant_id, import_id)
    return read_import(found, await read_job_now(runtime, job), job.args)


@router.delete(
    "/v1/contacts/imports/{import_id:uuid}",
    status_code=204,
    responses=documented(ImportNotFound, ImportUnderWay),
)
async def delete_import(session: SessionDep, principal: PrincipalDep, import_id: UUID) -> None:
    """Delete an import that is over, with its rejected rows and its file; contacts stay."""
    await service.delete_import(session, principal.tenant_id, import_id)


async def get_found_import(
    session: ReadSessionDep, principal: PrincipalDep, import_id: UUID
) -> ContactImport:
    """Raises `ImportNotFound` and `ImportUnderWay` while the answer can still be one of them."""
    mend = "which rows it rejects is known once it is over"
    found, _ = await service.get_finished_import(session, principal.tenant_id, import_id, mend=mend)
    return found


@router.get(
    "/v1/contacts/imports/{import_id:uuid}/rejects",
    response_class=StreamingResponse,
    responses={
        **csv_response("rejects.csv", REJECTS_EXAMPLE),
        **documented(ImportNotFound, ImportUnderWay),
    },
)
async def download_rejects(
    runtime: RuntimeDep, found: Annotated[ContactImport, Depends(get_found_import)]
) -> StreamingResponse:
    """Download the rejected rows as CSV, with line, column and reason in front.

    Correct them and import the file again: the columns in front are ignored.
    """
    return as_file("rejects.csv", export_rejects(runtime.database, found))
