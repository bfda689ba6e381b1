"""What a running study shows: bars that fit a terminal, plain lines elsewhere, JSON on request."""

import io
import json
import logging

import pytest
from rich.console import Console

from bitfront.allocation import Allocation
from bitfront.display import Display, Stage
from bitfront.progress import Event
from bitfront.trial import Trial, TrialState

STAGES = ["load", "text", "quantize", "reference", "estimate", "slopes", "search", "evaluate"]


def trial(number: int, kl: float | None = 0.1234) -> Trial:
    values = {"bits_per_weight": 3.5} | ({} if kl is None else {"kl": kl})
    state = TrialState.FAIL if kl is None else TrialState.COMPLETE
    return Trial(number, Allocation({"a": "int4_g64"}), "calibration", "sweep", state, values)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def plain(clock: Clock):
    """A display that is not on a terminal, and its lines so far."""
    stream = io.StringIO()
    display = Display(False, Console(file=stream, force_terminal=False), clock)
    return display, lambda: stream.getvalue().splitlines()


def test_plain_lines_appear_at_once_at_begin_and_end_of_a_stage(plain, clock) -> None:
    display, lines = plain
    with display:
        display.show(Event("load", 0, 1))
        assert lines() == ["0:00:00 Load model 0/1"]
        clock.now = 3
        display.show(Event("load", 1, 1))
        assert lines()[1:] == ["0:00:03 Load model 1/1"]


def test_plain_lines_within_a_stage_are_seconds_apart(plain, clock) -> None:
    display, lines = plain
    for done in range(101):
        clock.now = done / 5
        display.show(Event("quantize", done, 100))
    assert [line.split()[2] for line in lines()] == [
        *("0/100", "25/100", "50/100", "75/100", "100/100"),
    ]


def test_every_trial_has_a_plain_line_with_its_values(plain) -> None:
    display, lines = plain
    for number in range(4):
        display.show(Event("search", number, 4))
        display.show(Event("search", number + 1, 4, trial(number, None if number == 2 else 0.1234)))
    assert lines() == [
        "0:00:00 Search 0/4",
        "0:00:00 Search 1/4 kl 0.1234 3.50 bpw",
        "0:00:00 Search 2/4 kl 0.1234 3.50 bpw",
        "0:00:00 Search 3/4 failed 3.50 bpw",
        "0:00:00 Search 4/4 kl 0.1234 3.50 bpw",
    ]


def test_plain_lines_say_the_time_left(plain, clock) -> None:
    display, lines = plain
    for done in range(4):
        clock.now = 40.0 * done
        display.show(Event("estimate", done, 90))
    assert lines() == [
        "0:00:00 Estimate 0/90",
        "0:00:40 Estimate 1/90 left 0:59:20",
        "0:01:20 Estimate 2/90 left 0:58:40",
        "0:02:00 Estimate 3/90 left 0:58:00",
    ]


def test_the_time_left_of_a_search_counts_all_between_its_trials(plain, clock) -> None:
    """What `slopes` takes, and beginning a trial; not the trials of an earlier run."""
    display, lines = plain
    display.show(Event("search", 10, 14))
    for number in (11, 12):
        for done in (0, 1):
            clock.now += 20
            display.show(Event("slopes", done, 1))
        clock.now += 20
        display.show(Event("search", number - 1, 14))
        clock.now += 40
        display.show(Event("search", number, 14, trial(number)))
    left = [line.partition(" left ")[2].split()[0] for line in lines() if "kl" in line]
    assert left == ["0:05:00", "0:03:20"]


def test_finalists_that_were_found_measured_make_no_estimate(plain, clock) -> None:
    display, lines = plain
    for done in range(1, 4):
        display.show(Event("evaluate", done, 6))
    display.show(Event("evaluate", 3, 6))
    clock.now = 40
    display.show(Event("evaluate", 4, 6, trial(0)))
    assert [line.partition(" left ")[2][:7] for line in lines()[-2:]] == ["", "0:01:20"]


def test_the_time_left_follows_a_change_of_pace(plain, clock) -> None:
    """A bank that is half there: what it has is only looked at."""
    display, lines = plain
    for done in range(551):
        clock.now += 0.01 if done <= 500 else 10
        display.show(Event("quantize", done, 1000))
    assert lines()[-1].endswith("550/1000 left 1:15:00")


def test_a_stage_that_starts_again_is_numbered(plain) -> None:
    display, lines = plain
    for done in (1, 2, 3, 3, 1, 2, 3):
        display.show(Event("reference", done, 3))
    passes = [line.removeprefix("0:00:00 ").rpartition(" ")[0] for line in lines()]
    assert list(dict.fromkeys(passes)) == ["Reference", "Reference (2)"]


def on_terminal(events: list[Event], clock: Clock) -> str:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    with Display(False, console, clock) as display:
        for event in events:
            display.show(event)
    written = console.file.getvalue()
    return written[written.rindex("\x1b[2K") + 4 :] if "\x1b[2K" in written else written


@pytest.mark.parametrize("stage", STAGES)
def test_bars_fit_80_columns(stage: str, clock, monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    event = Event(stage, 4321, 5000, trial(3) if stage in {"search", "evaluate"} else None)
    again = [Event(stage, 5000, 5000), event] * 10
    shown = on_terminal(again, clock)
    (line,) = [text for text in shown.splitlines() if "4321/5000" in text]
    assert len(line) <= 80
    assert "…" not in line
    assert "(11)" in line
    assert line.count("0:00:00") >= 1
    assert "left" in line
    assert ("kl 0.1234 3.50 bpw" in line) == (event.trial is not None)


@pytest.mark.parametrize("seconds", [0.05, 40.0, 4000.0])
def test_bars_say_the_time_left_however_long_a_step_takes(seconds, clock, monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    with Display(False, console, clock) as display:
        for done in range(4):
            clock.now = seconds * done
            display.show(Event("estimate", done, 90))
    (line,) = [text for text in console.file.getvalue().splitlines()[-2:] if "3/90" in text]
    left = {0.05: "0:00:05", 40.0: "0:58:00", 4000.0: "96:40:00"}[seconds]
    assert line.rstrip().endswith(f"left {left}")


def test_the_bar_of_a_search_keeps_the_values_of_its_last_trial(clock, monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    shown = on_terminal([Event("search", 4, 9, trial(3)), Event("search", 4, 9)], clock)
    assert "kl 0.1234 3.50 bpw" in shown


def test_bars_count_down_within_a_step(clock, monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stage = Stage()
    for done in range(3):
        stage.take(Event("estimate", done, 4), 40.0 * done)
    assert [stage.left(now) for now in (80.0, 110.0, 120.0, 500.0)] == [80.0, 50.0, 40.0, 40.0]


def test_a_stage_that_starts_again_keeps_one_bar(clock, monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    events = [Event("reference", done, 3) for _ in range(3) for done in (1, 2, 3)]
    shown = on_terminal(events, clock)
    assert shown.count("Reference") == 1
    assert "Reference (3)" in shown
    assert "3/3" in shown


def test_json_lines_are_all_of_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(as_json=True) as display:
        display.show(Event("load", 0, 1))
        display.show(Event("search", 1, 4, trial(0)))
    output = capsys.readouterr()
    assert output.err == ""
    assert [json.loads(line) for line in output.out.splitlines()] == [
        {"stage": "load", "done": 0, "total": 1},
        {"stage": "search", "done": 1, "total": 4, "trial": json.loads(trial(0).to_json())},
    ]


def test_plain_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(as_json=False) as display:
        display.show(Event("load", 0, 1))
        assert "Load model 0/1" in capsys.readouterr().err
    assert capsys.readouterr().out == ""


def test_warnings_of_the_library_are_lines_of_the_display(plain) -> None:
    display, lines = plain
    logger = logging.getLogger("bitfront.somewhere")
    with display:
        logger.warning("%d weights [85%%] stay", 7)
        logger.info("a detail")
        logging.getLogger("transformers.somewhere").warning("of another library")
    assert lines() == ["Warning: 7 weights [85%] stay"]
    assert not logging.getLogger("bitfront").handlers


def test_warnings_keep_out_of_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(as_json=True):
        logging.getLogger("bitfront").warning("it stays")
    assert capsys.readouterr() == ("", "Warning: it stays\n")


def test_warnings_stand_above_the_bars(clock, monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    with Display(False, console, clock) as display:
        display.show(Event("load", 0, 1))
        logging.getLogger("bitfront").warning("it stays")
    assert "Warning: it stays\n" in console.file.getvalue().replace("\r", "")
