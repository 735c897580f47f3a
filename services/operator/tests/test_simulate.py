import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner, Result

from jangada_operator.cli import build

RECORDED = "at,seconds,kind\n" + "".join(
    f"{number * 0.1:.1f},{1 + number % 3},{'mail' if number % 2 else 'import'}\n"
    for number in range(300)
)


def called(*arguments: str) -> Result:
    return CliRunner().invoke(build(), ["simulate", *arguments])


@pytest.fixture
def recorded(tmp_path: Path) -> str:
    path = tmp_path / "monday.csv"
    path.write_text(RECORDED, "utf-8")
    return str(path)


def test_a_table_has_a_line_for_each_policy(recorded: str) -> None:
    answer = called("--trace", recorded)
    assert answer.exit_code == 0, answer.output
    header, *lines = answer.output.splitlines()
    assert header.split()[:3] == ["trace", "policy", "in"]
    assert [line.split()[:2] for line in lines] == [
        ["monday", name] for name in ("jangada", "keda", "keda-tuned", "hpa", "oracle")
    ]


def test_json_and_picture_are_the_same_each_time(recorded: str, tmp_path: Path) -> None:
    quiet = tmp_path / "sunday.csv"
    quiet.write_text("at,seconds\n1,2\n30,40\n", "utf-8")
    traces = ("--trace", recorded, "--trace", str(quiet))
    texts, pictures = set(), set()
    for number in range(2):
        picture = tmp_path / f"{number}.svg"
        answer = called(*traces, "--json", "--plot", str(picture))
        assert answer.exit_code == 0, answer.output
        texts.add(answer.output)
        pictures.add(picture.read_bytes())
    assert len(texts) == len(pictures) == 1
    found = [json.loads(line) for line in texts.pop().splitlines()]
    assert [each["trace"] for each in found] == ["monday"] * 5 + ["sunday"] * 5 + ["all"] * 5
    drawn = ET.fromstring(pictures.pop())  # noqa: S314 - we wrote it
    words = {(each.text or "").strip() for each in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {"monday", "sunday", "jangada", "oracle", "objective", "replicas that serve"} <= words


def test_into_a_folder_each_trace_is_drawn_by_itself(recorded: str, tmp_path: Path) -> None:
    folder = tmp_path / "plots"
    folder.mkdir()
    options = ("--policy", "jangada", "--policy", "keda", "--plot", str(folder))
    answer = called("--trace", recorded, "--trace", "trickle", *options)
    assert answer.exit_code == 0, answer.output
    assert sorted(path.name for path in folder.iterdir()) == ["monday.svg", "trickle.svg"]
    for path in folder.iterdir():
        assert f">{path.stem}<" in path.read_text("utf-8")


def test_what_if_shows_both_specs(recorded: str) -> None:
    changes = ("--what-if", "start-within=60s", "--what-if", "max=1")
    answer = called("--trace", recorded, "--json", *changes)
    assert answer.exit_code == 0, answer.output
    before, after = (json.loads(line) for line in answer.output.splitlines())
    assert [before["policy"], after["policy"]] == ["jangada", "jangada, changed"]
    assert after["pod_seconds"] < before["pod_seconds"]
    assert after["wait_p95_seconds"] > before["wait_p95_seconds"]


def test_options_change_spec_and_cluster(recorded: str) -> None:
    options = ("--min", "3", "--max", "3", "--slots", "2", "--start-within", "1m")
    answer = called("--trace", recorded, "--policy", "jangada", "--json", *options)
    figures = json.loads(answer.output)
    assert figures["decisions"] == 0
    assert figures["pod_seconds"] == pytest.approx(3 * figures["seconds"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--trace", "stepp"), "neither a file nor one of step, ramp"),
        (("--policy", "mine"), "choose from jangada, keda"),
        (("--start-within", "5"), "write 5s, 5m or 5h"),
        (("--start-within", "0s"), "the objective must be a positive time"),
        (("--min", "5", "--max", "4"), "the minimum must be between 0 and the maximum"),
        (("--what-if", "speed=9"), "start-within, min, max"),
        (("--what-if", "max"), "isn't key=value"),
        (("--what-if", "max=many"), "is no whole number"),
        (("--what-if", "start-within=5"), "lacks a unit"),
        (("--trace", "nowhere.csv"), "No such file"),
    ],
)
def test_an_error_says_how_to_mend_it(arguments: tuple[str, ...], message: str) -> None:
    answer = called("--trace", "trickle", *arguments)
    assert answer.exit_code == 2
    words = " ".join(line.strip("│ ") for line in answer.output.splitlines())
    assert message in " ".join(words.split())


def test_two_traces_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "trickle.csv"
    path.write_text(RECORDED, "utf-8")
    answer = called("--trace", "trickle", "--trace", str(path))
    assert answer.exit_code == 2
    assert "rename a file" in answer.output


def test_a_picture_that_cannot_be_written_is_an_error(recorded: str, tmp_path: Path) -> None:
    picture = tmp_path / "absent" / "picture.svg"
    answer = called("--trace", recorded, "--policy", "hpa", "--plot", str(picture))
    assert answer.exit_code == 1
    assert "can't be written: No such file or directory" in answer.output


def test_help_tells_every_option() -> None:
    answer = called("--help")
    assert answer.exit_code == 0
    for option in ("--trace", "--what-if", "--start-within", "--pod-start", "--plot", "--json"):
        assert option in answer.output
