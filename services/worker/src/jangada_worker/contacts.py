"""The jobs of contacts: importing a file."""

from datetime import timedelta

from jangada.contacts.importing import import_contacts
from jangada.contacts.schemas import ImportContacts
from jangada.jobs.context import JobContext
from jangada.jobs.registry import handles


@handles(ImportContacts, timeout=timedelta(hours=6))
async def import_file(args: ImportContacts, context: JobContext) -> None:
    await import_contacts(args, context)
