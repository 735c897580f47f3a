"""Measures the job engines: `make bench ARGS="queues --runs 3 --only celery,ours"`.

The contestants take turns (A B C, A B C, …), each alone with the servers while its turn lasts. The
exit code is 1 when a target isn't held, or a figure is void.
"""

import argparse
import signal
import subprocess
import sys

from queues.contestants import BY_NAME, CONTESTANTS, ROOT, Contestant
from queues.measures import Amount, Repetition, Results
from queues.recovery import Wait, recover_all
from queues.report import report
from queues.servers import Servers, open_servers

MEASURES = ("noop", "insert", "nap", "bulk", "pickup", "recovery")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="queues", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="repetitions")
    parser.add_argument("--jobs", type=int, default=30_000, help="jobs of one figure, at most")
    parser.add_argument(
        "--seconds", type=float, default=6.0, help="what a throughput should take; decides the jobs"
    )
    parser.add_argument("--rate", type=float, default=100.0, help="jobs a second for pick-up")
    parser.add_argument("--pickup-seconds", type=float, default=10.0)
    parser.add_argument("--kills", type=int, default=3, help="kills for the recovery")
    parser.add_argument("--patience", type=float, default=60.0, help="longest recovery, in seconds")
    parser.add_argument("--only", help=f"some of {', '.join(BY_NAME)}")
    parser.add_argument("--measure", help=f"some of {', '.join(MEASURES)}")
    return parser.parse_args()


def chosen(given: argparse.Namespace) -> list[Contestant]:
    names = given.only.split(",") if given.only else list(BY_NAME)
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise SystemExit(f"{', '.join(unknown)} is none of {', '.join(BY_NAME)}.")
    return [contestant for contestant in CONTESTANTS if contestant.name in names]


def make_environments(contestants: list[Contestant]) -> None:
    rivals = [contestant.rival for contestant in contestants if contestant.rival]
    if rivals:
        command = [sys.executable, str(ROOT / "scripts/rivals.py"), *rivals]
        subprocess.run(command, check=True)  # noqa: S603 - our own program


def measure(
    servers: Servers, contestants: list[Contestant], given: argparse.Namespace
) -> tuple[Results, list[dict[str, Wait]]]:
    measures = frozenset(given.measure.split(",") if given.measure else MEASURES)
    amount = Amount(given.jobs, given.seconds, given.rate, given.pickup_seconds, measures)
    results = Results()
    for number in range(given.runs):
        for contestant in contestants:
            if contestant.measured & measures - {"recovery"}:
                say(f"repetition {number + 1} of {given.runs}: {contestant.title}")
                Repetition(servers, contestant, amount, results).run(number)
    recoveries = []
    mortal = [contestant for contestant in contestants if "recovery" in contestant.measured]
    for number in range(given.kills if "recovery" in measures and mortal else 0):
        say(f"kill {number + 1} of {given.kills}, of all at once")
        recoveries.append(
            recover_all(servers, mortal, results, number=number, bound=given.patience)
        )
    return results, recoveries


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    given = parsed()
    asked = chosen(given)
    skipped = {each.title: why for each in asked if (why := each.missing())}
    for title, why in skipped.items():
        say(f"SKIPPED: {title}: {why}.")
    contestants = [each for each in asked if each.title not in skipped]
    make_environments(contestants)
    # A bench that is ended from outside still ends its servers and removes its files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with open_servers() as servers:
        results, recoveries = measure(servers, contestants, given)
    return report(results, recoveries, contestants, skipped=skipped)


if __name__ == "__main__":
    sys.exit(main())
