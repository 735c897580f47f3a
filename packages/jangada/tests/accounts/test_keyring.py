"""The signing keys: one for all processes, rotated without refusing anybody."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from typing import Any

import jwt
import pytest
from pydantic import SecretStr
from sqlalchemy import event, select

from jangada.accounts import keyring
from jangada.accounts.access_tokens import key_id
from jangada.accounts.errors import MasterKeyMismatch, TokenInvalid
from jangada.accounts.keyring import Keyring, list_keys, rotate
from jangada.accounts.models import SigningKey
from jangada.accounts.runtime import Accounts
from jangada.accounts.service.refreshing import refresh
from jangada.accounts.service.sign_in import authenticate
from jangada.config import DatabaseSettings, Settings
from jangada.db import Database, new_id
from jangada.errors import Unavailable
from jangada.runtime import open_runtime
from jangada.testing import FrozenClock

pytestmark = pytest.mark.anyio

type Enter = Callable[..., Awaitable[Any]]
type Open = Callable[..., AbstractAsyncContextManager[Accounts]]


def published(key_set: dict[str, Any]) -> set[str]:
    return {key["kid"] for key in key_set["keys"]}


@pytest.fixture
def without_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the keys is a fresh one, as if half a minute lay between."""
    monkeypatch.setattr(keyring, "RELOAD_AFTER", timedelta(seconds=-1))
    monkeypatch.setattr(keyring, "LOOK_UP_AT_MOST_EVERY", timedelta(seconds=-1))


async def test_five_processes_that_start_at_once_publish_one_key(
    open_process: Open, database: Database
) -> None:
    async with AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(open_process()) for _ in range(5)]
        sets = await asyncio.gather(*(one.keyring.key_set() for one in processes))
        signers = await asyncio.gather(*(one.keyring.signer() for one in processes))
    async with database.system_transaction("test") as session:
        rows = list(await session.scalars(select(SigningKey)))
    assert len(rows) == 1
    assert all(published(key_set) == {str(rows[0].id)} for key_set in sets)
    assert {signer.kid for signer in signers} == {str(rows[0].id)}


async def test_private_keys_are_not_stored_in_clear(accounts: Accounts, database: Database) -> None:
    signer = await accounts.keyring.signer()
    raw = signer.key.private_bytes_raw()  # type: ignore[union-attr]
    async with database.system_transaction("test") as session:
        row = await session.scalar(select(SigningKey))
    assert row is not None
    assert raw not in row.sealed_private_key
    assert raw not in row.public_key


@pytest.mark.usefixtures("without_patience")
async def test_a_rotation_publishes_before_it_signs_and_refuses_nobody(
    accounts: Accounts, sign_up: Enter, clock: FrozenClock
) -> None:
    person = await sign_up()
    old = key_id(person.tokens.access_token)
    new = str((await rotate(accounts.runtime)).id)

    assert published(await accounts.keyring.key_set()) == {old, new}
    before = await refresh(accounts, person.tokens.refresh_token)
    assert key_id(before.access_token) == old

    clock.advance(keyring.PUBLISH_AHEAD)
    after = await refresh(accounts, before.refresh_token)
    assert key_id(after.access_token) == new
    for tokens in (person.tokens, before, after):
        assert await authenticate(accounts, tokens.access_token) == person.who

    clock.advance(timedelta(minutes=15))
    assert published(await accounts.keyring.key_set()) == {old, new}, "clocks may differ a little"
    clock.advance(keyring.SLACK)
    assert published(await accounts.keyring.key_set()) == {new}


@pytest.mark.usefixtures("without_patience")
async def test_a_second_rotation_drops_keys_that_have_expired(
    accounts: Accounts, clock: FrozenClock, database: Database
) -> None:
    await accounts.keyring.signer()
    await rotate(accounts.runtime)
    clock.advance(timedelta(hours=1))
    await rotate(accounts.runtime)
    async with database.system_transaction("test") as session:
        assert len(list(await session.scalars(select(SigningKey)))) == 2


@pytest.mark.usefixtures("without_patience")
async def test_two_rotations_in_a_row_sign_in_turn(accounts: Accounts, clock: FrozenClock) -> None:
    first = (await accounts.keyring.signer()).kid
    second = str((await rotate(accounts.runtime)).id)
    clock.advance(timedelta(minutes=5))
    third = str((await rotate(accounts.runtime)).id)
    signing = [(await accounts.keyring.signer()).kid]
    for _ in range(2):
        clock.advance(timedelta(minutes=5))
        signing.append((await accounts.keyring.signer()).kid)
    assert signing == [first, second, third]


async def test_a_token_of_a_key_that_is_unknown_here_is_looked_up(
    accounts: Accounts, sign_up: Enter, open_process: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that read the keys a while ago meets a token signed with a newer one."""
    person = await sign_up()
    async with open_process() as other:
        await rotate(accounts.runtime, publish_ahead=keyring.AT_ONCE)
        tokens = await refresh(other, person.tokens.refresh_token)
        with pytest.raises(TokenInvalid):
            await authenticate(accounts, tokens.access_token)
        monkeypatch.setattr(keyring, "LOOK_UP_AT_MOST_EVERY", timedelta(0))
        assert await authenticate(accounts, tokens.access_token) == person.who


@pytest.fixture
async def reads(accounts: Accounts) -> list[str]:
    """The queries by which the process reads the keys again, once it knows them."""
    reads: list[str] = []
    await accounts.keyring.signer()

    def note(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if "FROM signing_keys" in statement:
            reads.append(statement)

    engine = accounts.runtime.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    return reads


async def test_unknown_key_ids_do_not_read_the_database_each_time(
    accounts: Accounts, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "LOOK_UP_AT_MOST_EVERY", timedelta(minutes=1))
    for _ in range(50):
        assert await accounts.keyring.find(str(new_id())) is None
    assert reads == []
    monkeypatch.setattr(keyring, "LOOK_UP_AT_MOST_EVERY", timedelta(0))
    assert await accounts.keyring.find(str(new_id())) is None
    assert len(reads) == 1


async def test_requests_that_meet_old_keys_read_them_once(
    accounts: Accounts, reads: list[str]
) -> None:
    assert accounts.keyring._keys is not None
    accounts.keyring._keys = replace(accounts.keyring._keys, read_at=float("-inf"))
    await asyncio.gather(*(accounts.keyring.signer() for _ in range(5)))
    assert len(reads) == 1


@pytest.mark.usefixtures("without_patience")
async def test_discarding_kills_the_tokens_of_a_leaked_key_and_sessions_go_on(
    accounts: Accounts, sign_up: Enter
) -> None:
    person = await sign_up()
    await rotate(accounts.runtime, discard_old=True)
    with pytest.raises(TokenInvalid):
        await authenticate(accounts, person.tokens.access_token)
    tokens = await refresh(accounts, person.tokens.refresh_token)
    assert await authenticate(accounts, tokens.access_token) == person.who


async def test_another_algorithm_is_a_setting_and_old_tokens_stay_good(
    accounts: Accounts, sign_up: Enter, open_process: Open, settings: Settings
) -> None:
    person = await sign_up()
    auth = settings.auth.model_copy(update={"algorithm": "ES256"})
    async with open_process(settings.model_copy(update={"auth": auth})) as es256:
        tokens = await refresh(es256, person.tokens.refresh_token)
        assert jwt.get_unverified_header(tokens.access_token)["alg"] == "ES256"
        assert await authenticate(es256, tokens.access_token) == person.who
        assert await authenticate(es256, person.tokens.access_token) == person.who
    assert [row.algorithm for row in await list_keys(accounts.runtime)] == ["ES256", "EdDSA"]


async def test_another_master_key_is_said_so_and_can_be_recovered_from(
    accounts: Accounts, open_process: Open, settings: Settings
) -> None:
    await accounts.keyring.signer()
    auth = settings.auth.model_copy(update={"master_key": SecretStr("another " * 5)})
    async with open_process(settings.model_copy(update={"auth": auth})) as wrong:
        with pytest.raises(MasterKeyMismatch, match="JANGADA_AUTH__MASTER_KEY"):
            await wrong.keyring.signer()
        await rotate(wrong.runtime, discard_old=True)
        await wrong.keyring.signer()


async def test_known_keys_outlive_an_absent_database(settings: Settings) -> None:
    nowhere = DatabaseSettings(url=SecretStr("postgresql://nobody@127.0.0.1:1/none"))
    async with (
        open_runtime(settings) as runtime,
        open_runtime(settings.model_copy(update={"database": nowhere})) as cut_off,
    ):
        ring = Keyring(cut_off)
        with pytest.raises(Unavailable):
            await ring.signer()
        keys = await keyring.read_keys(runtime)
        ring._keys = keyring.KeySet(keys.public, keys.private, read_at=float("-inf"))
        assert await ring.find(next(iter(keys.public)))
        assert not ring._keys.is_older_than(keyring.RELOAD_AFTER)
