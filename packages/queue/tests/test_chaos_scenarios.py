"""What breaks stock taskiq-redis doesn't break ours: the bench's scenarios, with short leases.

`make bench ARGS="chaos"` runs them for long, beside stock. E11 is about taskiq's own scheduler.
"""

import pytest
from chaos import backlog, crashes, endings, failures, queue_storms
from chaos.columns import FAST, OURS, SHORT, Column
from chaos.findings import SCENARIOS
from chaos.forkserver import ForkServer
from chaos.servers import faketime

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(OURS.missing), reason=f"jangada_queue.taskiq is {OURS.missing}"),
]

MODULES = (backlog, crashes, endings, failures, queue_storms)
"""Importing them registers their scenarios."""

NOT_OURS = {"E11"}
NEEDS_CLOCK = {"Q7"}
NAMES = [name for name, entry in SCENARIOS.items() if OURS in entry.columns]
RECEIVERS = {"E6", "E12"}
"""How a worker ends is the receiver's work: there our own is asked, too.

`test_taskiq.py` asks both of long tasks, cut connections and middlewares that raise, and
`test_taskiq_guide.py` of a kill; the bench asks both everywhere.
"""

CASES = [(name, OURS) for name in NAMES if name not in NOT_OURS]
CASES += [(name, FAST) for name in NAMES if name in RECEIVERS]


@pytest.mark.parametrize(("name", "column"), CASES, ids=str)
async def test_ours_is_sound(name: str, column: Column, forks: ForkServer) -> None:
    if name in NEEDS_CLOCK and faketime() is None:
        pytest.skip("Valkey's clock can't be set without libfaketime: apt install libfaketime")
    finding = await SCENARIOS[name].run(column, SHORT, forks.start)
    assert finding.is_sound, finding.figure
    assert finding.counts.violations == 0, finding.figure
