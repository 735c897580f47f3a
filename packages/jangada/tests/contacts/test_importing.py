"""What an import makes of a file, of what is there already, and of both together."""

import asyncio
import codecs
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from sqlalchemy import select, text

from jangada.config import Settings
from jangada.contacts import service
from jangada.contacts.errors import (
    EmptyFile,
    NoHeader,
    NotText,
    NulByte,
    TooManyColumns,
    TooManyLines,
    UnbalancedQuote,
    Undecodable,
    UnknownMapping,
    UnknownRegion,
    UnreadableFile,
)
from jangada.contacts.importing import import_contacts
from jangada.contacts.models import ImportReject
from jangada.contacts.schemas import ContactCreate, ImportContacts
from jangada.files.errors import FileNotFound
from jangada.files.models import File
from jangada.files.uploads import sweep_uploads
from jangada.jobs.errors import LeaseLost
from jangada.runtime import Runtime, open_runtime
from jangada.testing import eventually, make_person

if TYPE_CHECKING:
    from packages.jangada.tests.contacts.conftest import Importer

pytestmark = pytest.mark.anyio

PHONE, OTHER = "+5511987654321", "+5511912345678"


async def put(importer: "Importer", *contacts: tuple[str, str | None, str | None]) -> None:
    async with importer.runtime.database.transaction(importer.tenant_id) as session:
        for name, email, phone in contacts:
            new = ContactCreate(name=name, email=email, phone=phone)
            await service.create_contact(session, importer.tenant_id, new, region="BR")


async def test_a_clean_file_becomes_contacts(importer: "Importer") -> None:
    statistics = await importer(
        "Name,E-mail,Phone,Company,Notes\n"
        "Ana Lima,Ana@Example.com,(11) 98765-4321,Acme,vip\n"
        "Rui,,+351 912 345 678,,\n"
    )
    assert statistics.pop("seconds") > 0
    assert statistics == {
        "rows": 2,
        "inserted": 2,
        "updated": 0,
        "unchanged": 0,
        "skipped": 0,
        "duplicates": 0,
        "rejected": 0,
        "rejected_by_reason": {},
    }
    assert await importer.shown() == {
        ("Ana Lima", "ana@example.com", PHONE),
        ("Rui", None, "+351912345678"),
    }
    ana = next(each for each in await importer.contacts() if each.email)
    assert (ana.company, ana.attributes, ana.name_key) == ("Acme", {"Notes": "vip"}, "ana lima")


async def test_ids_are_version_7_and_unique(importer: "Importer") -> None:
    await importer("email\n" + "".join(f"a{number}@b.co\n" for number in range(300)))
    ids = [each.id for each in await importer.contacts()]
    assert len(set(ids)) == 300
    assert {(each.version, each.variant) for each in ids} == {(7, UUID(int=0x8 << 60).variant)}


async def test_every_kind_of_end_is_counted(importer: "Importer") -> None:
    await put(importer, ("Ana", "ana@b.co", None), ("Rui", "rui@b.co", None))
    job = await importer.start(
        "name,email\n"
        "Ana,ana@b.co\n"  # unchanged
        "Rui Sá,rui@b.co\n"  # updated
        "Eva,eva@b.co\n"  # overruled by the last line
        "Bad,bad\n"
        "Nobody,\n"
        "\n"
        "Eva Luz,EVA@b.co\n"  # inserted
    )
    statistics = await importer.run(job)
    del statistics["seconds"]
    assert statistics == {
        "rows": 6,
        "inserted": 1,
        "updated": 1,
        "unchanged": 1,
        "skipped": 0,
        "duplicates": 1,
        "rejected": 2,
        "rejected_by_reason": {"invalid_email": 1, "missing_key": 1},
    }
    assert await importer.shown() == {
        ("Ana", "ana@b.co", None),
        ("Rui Sá", "rui@b.co", None),
        ("Eva Luz", "eva@b.co", None),
    }
    assert await importer.rejects(job) == (
        "_line,_column,_reason,name,email\r\n"
        "5,email,invalid_email,Bad,bad\r\n"
        "6,email,missing_key,Nobody,\r\n"
    )


async def test_rejects_can_be_corrected_and_imported_again(importer: "Importer") -> None:
    first = (
        'nome;e-mail;telefone;;nota\n"Ana; Lima";ana@b;;x;"=1\n+1";extra\n'
        "Rui;rui@b.co;99;y;z\nEva;eva@b.co;;;\n"
    )
    job = await importer.start(first)
    assert (await importer.run(job))["rejected"] == 2
    rejects = await importer.rejects(job)
    assert "'=1\n'+1" in rejects
    uncorrected = await importer.start(rejects)
    assert (await importer.run(uncorrected))["rejected"] == 2
    assert await importer.rejects(uncorrected) == rejects
    corrected = rejects.replace("ana@b,", "ana@b.co,").replace(",99,", ",11 98765-4321,")
    assert await importer.counts(corrected) == {"inserted": 2}
    ana, rui = [each for each in await importer.contacts() if each.name != "Eva"]
    assert (ana.name, ana.attributes) == (
        "Ana; Lima",
        {"column_4": "x", "nota": "=1\n+1", "column_6": "extra"},
    )
    assert (rui.phone, rui.attributes) == (PHONE, {"column_4": "y", "nota": "z"})
    whole = first.replace("ana@b;", "ana@b.co;").replace(";99;", ";11 98765-4321;")
    assert await importer.counts(whole) == {"unchanged": 3}


async def test_importing_the_same_again_changes_nothing(importer: "Importer") -> None:
    file = f"name,email,phone,x\nAna,ana@b.co,{PHONE},1\nRui,,{PHONE},2\nEva,eva@b.co,{PHONE},\n"
    assert await importer.counts(file) == {"inserted": 3}
    before = await importer.contacts()
    assert await importer.counts(file) == {"unchanged": 3}
    assert [each.updated_at for each in await importer.contacts()] == [
        each.updated_at for each in before
    ]


async def test_an_update_takes_over_filled_cells_only(importer: "Importer") -> None:
    await importer("name,email,phone,company,a,b\nAna,ana@b.co,11987654321,Acme,1,2\n")
    counts = await importer.counts("name,email,phone,company,b,c\n,ana@b.co,,,3,4\n")
    assert counts == {"updated": 1}
    ana = (await importer.contacts())[0]
    assert (ana.name, ana.phone, ana.company) == ("Ana", PHONE, "Acme")
    assert ana.attributes == {"a": "1", "b": "3", "c": "4"}
    assert ana.updated_at > ana.created_at
    counts = await importer.counts(f"name,email,phone,company\nANA,ana@b.co,{OTHER},Zeta\n")
    assert counts == {"updated": 1}
    ana = (await importer.contacts())[0]
    assert (ana.name, ana.name_key, ana.phone, ana.company) == ("ANA", "ana", OTHER, "Zeta")


async def test_existing_contacts_can_be_left_alone(importer: "Importer") -> None:
    await put(importer, ("Ana", "ana@b.co", None))
    file = "name,email\nANA,ana@b.co\nRui,rui@b.co\n"
    assert await importer.counts(file, on_conflict="skip") == {"inserted": 1, "skipped": 1}
    assert await importer.shown() == {("Ana", "ana@b.co", None), ("Rui", "rui@b.co", None)}


@pytest.mark.parametrize("on_conflict", ["update", "skip"])
async def test_validating_counts_the_same_and_changes_nothing(
    importer: "Importer", on_conflict: str
) -> None:
    await put(importer, ("Ana", "ana@b.co", None), ("Rui", "rui@b.co", PHONE))
    file = (
        f"name,email,phone\nANA,ana@b.co,\nRui,rui@b.co,\nX,x@b.co,\nY,y@b.co,{OTHER}\nbad,bad,\n"
    )
    file += f"Ana,ana@b.co,{PHONE}\n"
    before = await importer.shown()
    job = await importer.start(file, on_conflict=on_conflict, validate_only=True)
    validated = await importer.run(job)
    assert await importer.shown() == before
    assert (await importer.rejects(job)).count("\r\n") == 3
    imported = await importer(file, on_conflict=on_conflict)
    del validated["seconds"], imported["seconds"]
    assert validated == imported


type Known = tuple[str, str | None, str | None]

A, B, BARE = ("A", "a@b.co", None), ("B", "b@b.co", None), ("Bare", None, PHONE)
A_PHONE, B_PHONE = ("A", "a@b.co", PHONE), ("B", "b@b.co", PHONE)


@pytest.mark.parametrize(
    ("known", "rows", "counts", "after"),
    [
        # A row that knows both completes the contact that had only the phone.
        ([BARE], [("N", "n@b.co", PHONE)], {"updated": 1}, {("N", "n@b.co", PHONE)}),
        # A phone alone finds the one contact that has it.
        ([A_PHONE], [("N", "", PHONE)], {"updated": 1}, {("N", "a@b.co", PHONE)}),
        # It can't say which of two, unless it is the key of one.
        ([A_PHONE, B_PHONE], [("N", "", PHONE)], {"rejected": 1}, {A_PHONE, B_PHONE}),
        # People share phones: an unknown address with a known phone is somebody new.
        ([A_PHONE], [("N", "n@b.co", PHONE)], {"inserted": 1}, {A_PHONE, ("N", "n@b.co", PHONE)}),
        # Address and phone belong to different contacts.
        ([A, B_PHONE], [("N", "a@b.co", PHONE)], {"rejected": 1}, {A, B_PHONE}),
        ([A, BARE], [("N", "a@b.co", PHONE)], {"rejected": 1}, {A, BARE}),
        # But not where the contact of the address is among those that share the phone.
        (
            [A_PHONE, B_PHONE],
            [("N", "a@b.co", PHONE)],
            {"updated": 1},
            {("N", "a@b.co", PHONE), B_PHONE},
        ),
        # A new phone of one's own is no question.
        ([A], [("N", "a@b.co", OTHER)], {"updated": 1}, {("N", "a@b.co", OTHER)}),
        ([A_PHONE], [("N", "a@b.co", OTHER)], {"updated": 1}, {("N", "a@b.co", OTHER)}),
        # The row with the contact's key goes before one that would complete it.
        (
            [BARE],
            [("N", "", PHONE), ("M", "m@b.co", PHONE)],
            {"updated": 1, "inserted": 1},
            {("N", None, PHONE), ("M", "m@b.co", PHONE)},
        ),
        (
            [A_PHONE],
            [("N", "", PHONE), ("M", "a@b.co", PHONE)],
            {"updated": 1, "inserted": 1},
            {("N", None, PHONE), ("M", "a@b.co", PHONE)},
        ),
        # Of two that would complete it the last does.
        (
            [BARE],
            [("M", "m@b.co", PHONE), ("N", "n@b.co", PHONE)],
            {"updated": 1, "inserted": 1},
            {("M", "m@b.co", PHONE), ("N", "n@b.co", PHONE)},
        ),
        # A row that is rejected takes nobody's place.
        (
            [A_PHONE, ("B", "b@b.co", OTHER)],
            [("N", "", PHONE), ("M", "a@b.co", OTHER)],
            {"updated": 1, "rejected": 1},
            {("N", "a@b.co", PHONE), ("B", "b@b.co", OTHER)},
        ),
        # Within a file the key decides what a duplicate is, and the last one wins.
        (
            [],
            [("M", "", PHONE), ("N", "", PHONE), ("O", "o@b.co", PHONE), ("P", "p@b.co", PHONE)],
            {"inserted": 3, "duplicates": 1},
            {("N", None, PHONE), ("O", "o@b.co", PHONE), ("P", "p@b.co", PHONE)},
        ),
    ],
)
async def test_rows_find_their_contacts(
    *,
    importer: "Importer",
    known: list[Known],
    rows: list[tuple[str, str, str]],
    counts: dict[str, int],
    after: set[Known],
) -> None:
    await put(importer, *known)
    file = "name,email,phone\n" + "".join(f"{','.join(row)}\n" for row in rows)
    assert await importer.counts(file) == counts
    assert await importer.shown() == after
    if "rejected" not in counts:
        assert set(await importer.counts(file)) <= {"unchanged", "duplicates"}
        assert await importer.shown() == after


async def test_an_ambiguous_row_can_be_corrected(importer: "Importer") -> None:
    await put(importer, A, B_PHONE)
    job = await importer.start(
        "_line,First Name,Last Name,E-mail,E-mail 2 - Value,Phone,Company,Notes\n"
        ",Ana,Lima,A@b.co ::: c@b.co ::: d@b.co,x@y.co,(11) 98765-4321:::99,Acme,''=n,over,,flow\n"
    )
    statistics = await importer.run(job)
    assert statistics["rejected_by_reason"] == {"ambiguous_match": 1}
    rejects = await importer.rejects(job)
    assert rejects.splitlines()[1] == (
        f"2,Phone,ambiguous_match,Ana Lima,,a@b.co ::: c@b.co ::: d@b.co,x@y.co,'{PHONE} ::: 99,"
        "Acme,''=n,over,,flow"
    )
    assert await importer.counts(rejects.replace(PHONE, OTHER)) == {"updated": 1}
    ana = next(each for each in await importer.contacts() if each.email == "a@b.co")
    assert (ana.name, ana.phone, ana.company) == ("Ana Lima", OTHER, "Acme")
    assert ana.attributes == {
        "E-mail (more)": "c@b.co ::: d@b.co",
        "E-mail 2 - Value": "x@y.co",
        "Phone (more)": "99",
        "Notes": "'=n",
        "column_8": "over",
        "column_10": "flow",
    }


async def test_columns_that_only_look_like_overflow_are_none(importer: "Importer") -> None:
    await put(importer, A, B_PHONE)
    job = await importer.start(
        f"email,email (more),phone,column_999999999\na@b.co,m,{PHONE},n,over\n"
    )
    await importer.run(job)
    rejects = await importer.rejects(job)
    assert rejects.splitlines()[1] == f"2,phone,ambiguous_match,a@b.co,m,{PHONE},n,over"


async def test_tenants_do_not_see_each_other(importer: "Importer", runtime: Runtime) -> None:
    other = type(importer)(runtime, (await make_person(runtime.database, "Bia")).tenant_id)
    file = f"name,email,phone\nAna,ana@b.co,{PHONE}\n"
    assert await importer.counts(file) == {"inserted": 1}
    assert await other.counts(file.replace("Ana", "Bia")) == {"inserted": 1}
    assert await importer.counts(file) == {"unchanged": 1}
    assert await importer.shown() == {("Ana", "ana@b.co", PHONE)}
    assert await other.shown() == {("Bia", "ana@b.co", PHONE)}


@pytest.mark.parametrize(
    ("content", "options", "error"),
    [
        (b"\n \n\r\n", {}, EmptyFile),
        (codecs.BOM_UTF8, {}, EmptyFile),
        (b"Ana,ana@b.co\n", {}, NoHeader),
        (b"PK\x03\x04", {}, NotText),
        (b'name,email\nAna,"ana@b.co\n', {}, UnbalancedQuote),
        (b"name,email\nA\0na,ana@b.co\n", {}, NulByte),
        (b"name,email\n\xc3\xa3,ana@b.co\n\xff", {}, Undecodable),
        (b"email" + b",x" * 512, {}, TooManyColumns),
        (b"name,email\nAna,ana@b.co\n", {"mapping": {"Fax": "phone"}}, UnknownMapping),
    ],
)
async def test_an_unreadable_file_writes_nothing(
    importer: "Importer", content: bytes, options: dict[str, Any], error: type[UnreadableFile]
) -> None:
    job = await importer.start(content, **options)
    with pytest.raises(error):
        await importer.run(job)
    assert await importer.contacts() == []
    assert await importer.rejects(job) == "_line,_column,_reason\r\n"


async def test_a_fault_in_the_last_line_leaves_nothing_of_the_lines_before(
    importer: "Importer",
) -> None:
    rows = "".join(f"a{number}@b.co\n" for number in range(20_000))
    job = await importer.start(f'email\n{rows}"')
    with pytest.raises(UnbalancedQuote, match="line 20002"):
        await importer.run(job)
    assert await importer.contacts() == []


async def test_an_attempt_that_lost_its_lease_leaves_nothing(importer: "Importer") -> None:
    job = await importer.start("email\na@b.co\nbad\n")
    context = await importer.granted(job)
    await importer.granted(job)
    with pytest.raises(LeaseLost):
        await import_contacts(ImportContacts.model_validate(job.args), context)
    assert await importer.contacts() == []
    assert await importer.rejects(job) == "_line,_column,_reason\r\n"


async def test_two_attempts_give_one_result(importer: "Importer") -> None:
    job = await importer.start("email\na@b.co\nbad\n")
    context = await importer.granted(job)
    statistics = await importer.run(job)
    assert (statistics["inserted"], statistics["rejected"]) == (1, 1)
    with pytest.raises(FileNotFound):
        await import_contacts(ImportContacts.model_validate(job.args), context)
    assert len(await importer.contacts()) == 1


async def test_the_file_goes_with_the_completion(importer: "Importer", runtime: Runtime) -> None:
    job = await importer.start("email\na@b.co\n")
    await importer.run(job)
    async with runtime.database.read(importer.tenant_id) as session:
        assert await session.scalar(select(File.id)) is None
        found, _ = await service.get_import(session, importer.tenant_id, job.id)
    assert (found.file_id, found.file_name) == (None, "contacts.csv")
    assert (found.encoding, found.delimiter, found.header) == ("utf-8", ",", ["email"])
    assert await sweep_uploads(runtime) == 1


async def test_progress_is_reported(importer: "Importer") -> None:
    job = await importer.start("email\n" + "".join(f"a{n}@b.co\n" for n in range(12_000)))
    context = await importer.granted(job)
    seen: list[tuple[int, int | None]] = []

    async def report(done: int, total: int | None) -> None:
        seen.append((done, total))

    context.report = report
    await import_contacts(ImportContacts.model_validate(job.args), context)
    assert [done for done, _ in seen] == [4_999, 9_999, 12_000, 12_000]
    assert seen[-1] == (12_000, 12_000)
    assert all(total is not None and total >= done for done, total in seen)


async def test_a_cancelled_import_stops_and_leaves_nothing(importer: "Importer") -> None:
    """Wherever it is: here between two batches, with the thread ahead at work."""
    job = await importer.start("email\n" + "".join(f"a{n}@b.co\n" for n in range(60_000)))
    context = await importer.granted(job)
    reached = asyncio.Event()

    async def report(done: int, total: int | None) -> None:
        del total
        if done > 20_000:
            reached.set()
            await asyncio.Event().wait()

    context.report = report
    running = asyncio.create_task(import_contacts(ImportContacts.model_validate(job.args), context))
    await reached.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await importer.contacts() == []


async def test_a_merge_can_be_cancelled_while_it_waits_in_postgresql(
    importer: "Importer", runtime: Runtime
) -> None:
    await put(importer, A)
    job = await importer.start("name,email\nN,a@b.co\n")
    context = await importer.granted(job)
    async with runtime.database.transaction(importer.tenant_id) as session:
        await session.execute(text("SELECT 1 FROM contacts FOR UPDATE"))
        running = asyncio.create_task(
            import_contacts(ImportContacts.model_validate(job.args), context)
        )
        await eventually(lambda: _waiting(runtime))
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert await importer.shown() == {A}


async def _waiting(runtime: Runtime) -> int:
    async with runtime.database.system_transaction("test") as session:
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        return int(await session.scalar(text(waiting)) or 0)


async def test_a_merge_that_collides_is_done_again(importer: "Importer", runtime: Runtime) -> None:
    """Somebody creates a contact of the file while the merge is about to."""
    job = await importer.start("name,email\nN,a@b.co\nM,b@b.co\n")
    async with runtime.database.transaction(importer.tenant_id) as session:
        new = ContactCreate(name="A", email="a@b.co")
        await service.create_contact(session, importer.tenant_id, new, region="BR")
        running = asyncio.create_task(importer.run(job))
        await eventually(lambda: _waiting(runtime))
    statistics = await running
    assert (statistics["inserted"], statistics["updated"]) == (1, 1)
    assert await importer.shown() == {("N", "a@b.co", None), ("M", "b@b.co", None)}


async def test_imports_of_one_tenant_at_once_end_as_if_one_after_another(
    importer: "Importer",
) -> None:
    rows = "".join(f"N{number},a{number}@b.co\n" for number in range(2_000))
    jobs = [await importer.start(f"name,email\n{rows}") for _ in range(3)]
    results = await asyncio.gather(*map(importer.run, jobs))
    assert sorted(each["inserted"] for each in results) == [0, 0, 2_000]
    assert sorted(each["unchanged"] for each in results) == [0, 2_000, 2_000]
    assert len(await importer.contacts()) == 2_000


async def test_limits_are_settings(settings: Settings, importer: "Importer") -> None:
    limits = settings.contacts.model_copy(
        update={"max_columns": 2, "max_cell_chars": 100, "batch_rows": 10, "max_lines": 100}
    )
    async with open_runtime(settings.model_copy(update={"contacts": limits})) as runtime:
        tight = type(importer)(runtime, importer.tenant_id)
        counts = await tight.counts("email,x\na@b.co," + "x" * 101 + "\nc@d.co,y,z\n")
        assert counts == {"rejected": 2}
        with pytest.raises(TooManyColumns):
            await tight("email,x,y\na@b.co,,\n")
        with pytest.raises(TooManyLines, match="more than 100 lines"):
            await tight("email\na@b.co\n" + "\r" * 100)


async def test_regions_are_options(importer: "Importer") -> None:
    await importer("phone\n912 345 678\n", default_region="PT")
    assert [each.phone for each in await importer.contacts()] == ["+351912345678"]
    with pytest.raises(ValueError, match=UnknownRegion.code):
        await importer("phone\n1\n", default_region="XX")


async def test_rejects_of_another_tenant_are_not_to_be_had(
    importer: "Importer", runtime: Runtime
) -> None:
    await importer("email\nbad\n")
    other = await make_person(runtime.database, "Bia")
    async with runtime.database.read(other.tenant_id) as session:
        assert (await session.scalars(select(ImportReject))).all() == []
