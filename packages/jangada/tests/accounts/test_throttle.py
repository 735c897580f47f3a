"""Failed sign-ins: guessing is slowed down, and the owner of an account is not locked out."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import func, select, text

from jangada.accounts.errors import (
    EmailTaken,
    HashingBusy,
    PasswordWrong,
    SignInFailed,
    SignInThrottled,
)
from jangada.accounts.models import SignInFailure
from jangada.accounts.runtime import Accounts
from jangada.accounts.schemas import Client, Registration
from jangada.accounts.service import housekeeping
from jangada.accounts.service.profile import confirm_password
from jangada.accounts.service.registration import register
from jangada.accounts.throttle import MOST_IN_TURN, network
from jangada.auth_settings import ThrottleSettings
from jangada.config import Settings, ValkeySettings
from jangada.local.valkey import EmbeddedValkey

pytestmark = pytest.mark.anyio

type Enter = Callable[..., Awaitable[Any]]
type Open = Callable[..., AbstractAsyncContextManager[Accounts]]

PROTOCOL_PAGE = Path(__file__).parents[4] / "docs" / "queue-protocol.md"
LIMITS = ThrottleSettings(account_failures=3, address_failures=6, window=timedelta(minutes=15))
ELSEWHERE = "198.51.100.9"
WRONG = "not the password at all"


def limited(settings: Settings) -> Settings:
    auth = settings.auth.model_copy(update={"throttle": LIMITS})
    return settings.model_copy(update={"auth": auth})


@pytest.fixture(params=["valkey", "postgres"])
async def strict(
    request: pytest.FixtureRequest, settings: Settings, without_valkey: Settings, open_process: Open
) -> AsyncIterator[Accounts]:
    """A process with low limits, its counts in Valkey or, while that is away, in PostgreSQL."""
    stored = {"valkey": settings, "postgres": without_valkey}[request.param]
    async with open_process(limited(stored)) as accounts:
        yield accounts


async def outcome(attempt: Awaitable[object]) -> type[Exception] | None:
    try:
        await attempt
    except Exception as error:  # noqa: BLE001 - the test compares types
        return type(error)
    return None


async def test_an_account_is_closed_after_too_many_failures(
    strict: Accounts, sign_up: Enter, sign_in: Enter
) -> None:
    await sign_up()
    for _ in range(3):
        with pytest.raises(SignInFailed):
            await sign_in(password=WRONG, address=ELSEWHERE, through=strict)
    with pytest.raises(SignInThrottled) as throttled:
        await sign_in(address=ELSEWHERE, through=strict)
    assert throttled.value.retry_after is not None
    assert timedelta(minutes=14) < throttled.value.retry_after <= timedelta(minutes=15)


async def test_an_unknown_address_is_throttled_alike(strict: Accounts, sign_in: Enter) -> None:
    said = [
        await outcome(sign_in("nobody@example.com", password=WRONG, through=strict))
        for _ in range(5)
    ]
    assert said == [SignInFailed] * 3 + [SignInThrottled] * 2


async def test_spellings_of_an_address_share_a_count(strict: Accounts, sign_in: Enter) -> None:
    for email in ("nobody@example.com", "NOBODY@example.com", "Nobody@Example.COM"):
        await outcome(sign_in(email, password=WRONG, through=strict))
    with pytest.raises(SignInThrottled):
        await sign_in("nobody@example.com", through=strict)


async def test_the_owner_is_not_locked_out_by_an_attack_from_elsewhere(
    strict: Accounts, sign_up: Enter, sign_in: Enter
) -> None:
    await sign_up()
    for _ in range(5):
        await outcome(sign_in(password=WRONG, address=ELSEWHERE, through=strict))
    assert await sign_in(through=strict)


async def test_a_known_address_has_a_count_of_its_own(
    strict: Accounts, sign_up: Enter, sign_in: Enter
) -> None:
    await sign_up()
    for _ in range(3):
        await outcome(sign_in(password=WRONG, through=strict))
    with pytest.raises(SignInThrottled):
        await sign_in(through=strict)


async def test_answers_do_not_tell_where_an_account_has_signed_in_from(
    strict: Accounts, sign_up: Enter, sign_in: Enter
) -> None:
    """Whoever shares an address with its owner could otherwise see that there is an account."""
    await sign_up()

    async def said(email: str, *addresses: str | None) -> list[type[Exception] | None]:
        attempts = (
            sign_in(email, password=WRONG, through=strict, **({"address": at} if at else {}))
            for at in addresses
        )
        return [await outcome(attempt) for attempt in attempts]

    for addresses in ([ELSEWHERE] * 3 + [None] * 2, [None] * 3 + [ELSEWHERE] * 2):
        known = await said("ana@example.com", *addresses)
        await end_windows(strict)
        assert known == await said("nobody@example.com", *addresses)
        assert known == [SignInFailed] * 3 + [SignInThrottled] * 2
        await end_windows(strict)


async def test_a_closed_account_does_not_tell_its_password(
    strict: Accounts, sign_up: Enter, sign_in: Enter
) -> None:
    await sign_up()
    for _ in range(3):
        await outcome(sign_in(password=WRONG, address=ELSEWHERE, through=strict))
    assert await outcome(sign_in(address=ELSEWHERE, through=strict)) is SignInThrottled
    assert await outcome(sign_in(password=WRONG, through=strict)) is SignInThrottled
    assert await sign_in(through=strict)


async def test_a_client_that_tries_many_accounts_is_throttled(
    strict: Accounts, sign_in: Enter
) -> None:
    said = [
        await outcome(sign_in(f"person{n}@example.com", password=WRONG, through=strict))
        for n in range(8)
    ]
    assert said == [SignInFailed] * 6 + [SignInThrottled] * 2


async def test_a_burst_does_not_slip_through(strict: Accounts, sign_in: Enter) -> None:
    said = await asyncio.gather(
        *(outcome(sign_in(password=WRONG, through=strict)) for _ in range(12))
    )
    assert said.count(SignInFailed) == 3
    assert said.count(SignInThrottled) == 9


async def test_twenty_good_sign_ins_at_once_are_all_let_in(
    strict: Accounts, sign_up: Enter, sign_in: Enter
) -> None:
    await sign_up()
    people = await asyncio.gather(*(sign_in(through=strict) for _ in range(20)))
    assert len({person.who.session_id for person in people}) == 20


async def test_a_burst_on_one_account_is_shed_and_keeps_nobody_else_waiting(
    strict: Accounts, sign_in: Enter
) -> None:
    throttle = strict.throttle
    attacked = throttle.account("nobody@example.com")

    async def wait() -> None:
        async with throttle.turn(attacked):
            pass

    async with throttle.turn(attacked):
        waiting = [asyncio.create_task(wait()) for _ in range(MOST_IN_TURN - 1)]
        await asyncio.sleep(0)
        with pytest.raises(HashingBusy) as busy:
            await sign_in("nobody@example.com", through=strict)
        assert busy.value.retry_after == timedelta(seconds=1)
        assert await outcome(sign_in("else@example.com", through=strict)) is SignInFailed
    await asyncio.gather(*waiting)
    assert await outcome(sign_in("nobody@example.com", through=strict)) is SignInFailed


async def test_the_window_ends(strict: Accounts, sign_up: Enter, sign_in: Enter) -> None:
    await sign_up()
    for _ in range(4):
        await outcome(sign_in(password=WRONG, address=ELSEWHERE, through=strict))
    await end_windows(strict)
    assert await sign_in(address=ELSEWHERE, through=strict)
    assert await outcome(sign_in(password=WRONG, address=ELSEWHERE, through=strict)) is SignInFailed


async def end_windows(accounts: Accounts) -> None:
    """As if a quarter of an hour had passed on the servers' clocks."""
    async with accounts.runtime.database.system_transaction("test") as session:
        await session.execute(text("UPDATE sign_in_failures SET window_ends_at = now()"))
    with suppress(RedisError):
        for key in await accounts.runtime.valkey.keys("*"):
            await accounts.runtime.valkey.pexpire(key, 0)


async def test_a_stolen_session_cannot_guess_the_password(strict: Accounts, sign_up: Enter) -> None:
    person = await sign_up()
    said = [
        await outcome(confirm_password(strict, person.who, WRONG, pointer="/password"))
        for _ in range(5)
    ]
    assert said == [PasswordWrong] * 3 + [SignInThrottled] * 2


async def test_asking_register_for_many_addresses_is_throttled_and_signing_in_is_not(
    strict: Accounts, sign_up: Enter, sign_in: Enter, password: str
) -> None:
    await sign_up()
    wanted = Registration(email="ana@example.com", name="Eve", password=SecretStr(password))
    said = [await outcome(register(strict, wanted, Client(ELSEWHERE))) for _ in range(8)]
    assert said == [EmailTaken] * 6 + [SignInThrottled] * 2
    assert await sign_in(address=ELSEWHERE, through=strict)


async def test_a_burst_of_questions_to_register_does_not_slip_through(
    strict: Accounts, sign_up: Enter, password: str
) -> None:
    await sign_up()
    wanted = Registration(email="ana@example.com", name="Eve", password=SecretStr(password))
    said = await asyncio.gather(
        *(outcome(register(strict, wanted, Client(ELSEWHERE))) for _ in range(12))
    )
    assert said.count(EmailTaken) == 6
    assert said.count(SignInThrottled) == 6


async def test_neither_store_learns_an_address(strict: Accounts, sign_in: Enter) -> None:
    await outcome(sign_in("canary@example.com", password=WRONG, through=strict))
    async with strict.runtime.database.system_transaction("test") as session:
        keys = list(await session.scalars(select(SignInFailure.key)))
    if not keys:
        keys = [str(key) for key in await strict.runtime.valkey.keys("*")]
    assert len(keys) == 3
    assert all("canary" not in key and "203.0.113" not in key for key in keys)


@pytest.fixture
def own_valkey(servers_folder: Path) -> Iterator[EmbeddedValkey]:
    """A Valkey that the test may stop."""
    with EmbeddedValkey(servers_folder / "own", durable=False) as server:
        yield server


async def test_counts_go_on_in_postgres_when_valkey_stops_and_in_valkey_when_it_is_back(
    own_valkey: EmbeddedValkey, settings: Settings, open_process: Open, sign_in: Enter
) -> None:
    own = settings.model_copy(update={"valkey": ValkeySettings(url=SecretStr(own_valkey.url))})
    async with open_process(limited(own)) as accounts:
        await outcome(sign_in(password=WRONG, through=accounts))
        own_valkey.stop()
        said = [await outcome(sign_in(password=WRONG, through=accounts)) for _ in range(4)]
        assert said == [SignInFailed] * 3 + [SignInThrottled]
        own_valkey.start()
        assert await outcome(sign_in(password=WRONG, through=accounts)) is SignInThrottled
        async with open_process(limited(own)) as another:
            assert await outcome(sign_in(password=WRONG, through=another)) is SignInThrottled
        await end_windows(accounts)
        assert await outcome(sign_in(password=WRONG, through=accounts)) is SignInFailed
        assert await accounts.runtime.valkey.dbsize() == 3


async def test_housekeeping_drops_counts_whose_window_is_over(
    without_valkey: Settings, open_process: Open, sign_in: Enter
) -> None:
    async with open_process(without_valkey) as accounts:
        await outcome(sign_in(password=WRONG, through=accounts))
        await housekeeping.prune(accounts.runtime)
        assert await counted(accounts) == 3
        await end_windows(accounts)
        await housekeeping.prune(accounts.runtime)
        assert await counted(accounts) == 0


async def counted(accounts: Accounts) -> int:
    async with accounts.runtime.database.system_transaction("test") as session:
        return await session.scalar(select(func.count()).select_from(SignInFailure)) or 0


@pytest.mark.parametrize(
    ("address", "told_by"),
    [
        (None, "unknown"),
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", network("2001:db8:1:2::")),
    ],
)
async def test_a_client_is_told_by_its_network(address: str | None, told_by: str) -> None:
    assert network(address) == told_by
    assert network("2001:db8:1:3::") != network("2001:db8:1:2::")


@pytest.mark.parametrize("missing", [[], ["INCRBY"]])
async def test_valkey_s_user_needs_the_commands_that_are_documented(
    *,
    settings: Settings,
    open_process: Open,
    valkey_client: Redis,
    capsys: pytest.CaptureFixture[str],
    missing: list[str],
) -> None:
    """Whoever leaves one out is told; failures are counted all the same, and are looked for."""
    (named,) = re.findall(r"counts failed sign-ins by `([A-Z ]+)`", PROTOCOL_PAGE.read_text())
    allowed = [f"+{command}" for command in named.split() if command not in missing]
    valkey_client.execute_command(
        *("ACL", "SETUSER", "api", "reset", "on", ">secret", "~jangada:*", "-@all", *allowed)
    )
    place = settings.valkey.url.get_secret_value().partition("@")[2]
    as_user = ValkeySettings(url=SecretStr(f"unix://api:secret@{place}"))
    async with open_process(limited(settings.model_copy(update={"valkey": as_user}))) as accounts:
        count = accounts.throttle.account("nobody@example.com")
        for _ in range(count.limit):
            await accounts.throttle.count(count)
        assert await accounts.throttle.spent(count)
    valkey_client.execute_command("ACL", "DELUSER", "api")
    assert ("counted in PostgreSQL" in "".join(capsys.readouterr())) is bool(missing)
