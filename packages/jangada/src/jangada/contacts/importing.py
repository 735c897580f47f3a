"""An import from the stored file to the merged contacts: one attempt of one job.

The file is read and checked in a thread, one batch ahead of the COPY that takes it, so that both
sides work at once and other jobs of the process go on. Until the merge commits, with the
statistics, the rejected rows and the job's completion, nothing is to be seen of an import; so a
worker may die anywhere, and the next attempt starts from nothing. Cancelling stops between batches,
and ends the statement that runs in PostgreSQL.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Final, LiteralString

from jangada.config import ContactsSettings
from jangada.contacts.merging import Merge, merge
from jangada.contacts.reading.rows import Limits
from jangada.contacts.reading.sheets import ReadingOptions, Sheet
from jangada.contacts.schemas import ImportContacts, ImportOptions, Statistics
from jangada.contacts.staging import Stage
from jangada.contacts.threads import Run, ahead, in_thread, own_thread
from jangada.files import service as files
from jangada.files.blobs import open_blobs
from jangada.files.models import File
from jangada.jobs.context import JobContext

_DESCRIBE: Final[LiteralString] = """
    UPDATE contact_imports SET encoding = %(encoding)s, delimiter = %(delimiter)s,
        header = %(header)s, file_id = NULL, updated_at = now()
    WHERE tenant_id = %(tenant)s AND id = %(import)s
"""
_DELETE_FILE: Final[LiteralString] = (
    "DELETE FROM files WHERE tenant_id = %(tenant)s AND id = %(file)s"
)


async def import_contacts(args: ImportContacts, ctx: JobContext) -> None:
    """Run one attempt. The job is completed, and the file deleted, in the merge's transaction.

    Raises `UnreadableFile`, which no other attempt would do better, and `LeaseLost`.
    """
    began = perf_counter()
    async with ctx.transaction() as session:
        file = await files.get_file(session, ctx.tenant_id, args.file_id)
    async with (
        _content(file, ctx) as body,
        ctx.runtime.database.direct() as connection,
        own_thread("import") as run,
    ):
        stage = Stage(connection)
        await stage.create()
        options = reading_options(args.options, ctx.runtime.settings.contacts)
        sheet = await run(Sheet, in_thread(body, asyncio.get_running_loop()), options)
        await _read(sheet, stage, run=run, ctx=ctx, size=file.size_bytes)
        await stage.keep_last()
        await _merge(stage, sheet, args=args, ctx=ctx, began=began)


def reading_options(options: ImportOptions, settings: ContactsSettings) -> ReadingOptions:
    return ReadingOptions(
        region=options.default_region,
        limits=Limits(settings.max_columns, settings.max_cell_chars, settings.max_lines),
        delimiter=options.delimiter,
        encoding=options.encoding,
        mapping=options.mapping,
        batch_rows=settings.batch_rows,
    )


@asynccontextmanager
async def _content(file: File, ctx: JobContext) -> AsyncIterator[AsyncIterator[bytes]]:
    body = open_blobs(ctx.runtime.settings.storage).open(file.blob_key)
    try:
        yield body
    finally:
        if isinstance(body, AsyncGenerator):
            await body.aclose()


async def _read(sheet: Sheet, stage: Stage, *, run: Run, ctx: JobContext, size: int) -> None:
    """Check the whole file into the stage. How many rows it has is guessed from the bytes read."""
    async for checked in ahead(run, sheet.checked()):
        await stage.add(checked)
        share = min(1.0, sheet.bytes_read / max(size, 1))
        await ctx.progress(stage.rows, max(stage.rows, round(stage.rows / max(share, 1e-9))))
    await ctx.progress(stage.rows, stage.rows)


async def _merge(
    stage: Stage, sheet: Sheet, *, args: ImportContacts, ctx: JobContext, began: float
) -> None:
    order = Merge(
        tenant_id=ctx.tenant_id,
        import_id=ctx.job_id,
        layout=sheet.layout,
        on_conflict=args.options.on_conflict,
        validate_only=args.options.validate_only,
    )

    async def conclude(statistics: Statistics) -> None:
        described = {
            "encoding": sheet.encoding,
            "delimiter": sheet.delimiter,
            "header": list(sheet.layout.header),
            "tenant": ctx.tenant_id,
            "import": ctx.job_id,
            "file": args.file_id,
        }
        await stage.connection.execute(_DESCRIBE, described)
        await stage.connection.execute(_DELETE_FILE, described)
        statistics.seconds = round(perf_counter() - began, 3)
        await ctx.complete_on(stage.connection, statistics)

    await merge(stage, order, conclude)
