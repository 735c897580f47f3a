"""The bench's storms on the platform, with short leases and few kills.

Those that have a closer look elsewhere aren't repeated: single processes that are killed, hogs and
frozen workers in `test_crashes.py`, cut connections in `test_absence.py`.
"""

import pytest
from chaos import (
    platform_clocks,
    platform_kills,
    platform_outages,
    platform_steps,
    platform_trials,
)
from chaos.columns import PLATFORM, SHORT
from chaos.findings import SCENARIOS
from chaos.forkserver import ForkServer
from chaos.servers import faketime

pytestmark = [pytest.mark.anyio, pytest.mark.e2e, pytest.mark.timeout(300)]

needs_clocks = pytest.mark.skipif(
    faketime() is None, reason="a server's clock is set by libfaketime: apt install libfaketime"
)

MODULES = (platform_clocks, platform_kills, platform_outages, platform_steps, platform_trials)
"""Importing them registers their storms."""


async def weather(forks: ForkServer, name: str) -> None:
    finding = await SCENARIOS[name].run(PLATFORM, SHORT, forks.start)
    assert finding.is_sound, finding.figure


async def test_killed_workers_lose_and_double_nothing(forks: ForkServer) -> None:
    await weather(forks, "P1")


async def test_a_dispatcher_may_die_at_any_step_of_the_protocol(forks: ForkServer) -> None:
    await weather(forks, "P3")


async def test_a_worker_may_die_in_grant_completion_and_commit(forks: ForkServer) -> None:
    await weather(forks, "P14")


async def test_a_dispatcher_may_die_at_any_moment(forks: ForkServer) -> None:
    await weather(forks, "P4")


async def test_exactly_what_was_committed_runs(forks: ForkServer) -> None:
    await weather(forks, "P5")


async def test_a_long_queue_survives_an_emptied_valkey(forks: ForkServer) -> None:
    await weather(forks, "P6")


async def test_postgresql_may_restart_and_crash_while_jobs_run(forks: ForkServer) -> None:
    await weather(forks, "P8")


async def test_valkey_may_be_away_while_jobs_run_and_are_enqueued(forks: ForkServer) -> None:
    await weather(forks, "P9")


async def test_a_frozen_dispatcher_keeps_nobody_from_going_on(forks: ForkServer) -> None:
    await weather(forks, "P15")


@needs_clocks
async def test_valkeys_clock_may_jump(forks: ForkServer) -> None:
    await weather(forks, "P10")


@needs_clocks
async def test_postgresqls_clock_may_jump_while_jobs_run(forks: ForkServer) -> None:
    await weather(forks, "P16")


@needs_clocks
async def test_a_worker_that_died_before_postgresqls_clock_was_set_back_is_found(
    forks: ForkServer,
) -> None:
    await weather(forks, "P17")
