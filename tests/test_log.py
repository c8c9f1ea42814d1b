"""log.py: what is logged, in both formats, and that nobody else can write in it."""

import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator

import pytest

from turbopump import log
from turbopump.config import Log


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """The process's logging as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.captureWarnings(False)


class Shouted:
    """What the engine's `Logged` looks like."""

    def __init__(self, level: str, event: str, fields: dict[str, str]) -> None:
        self.level, self.event, self.fields = level, event, fields


def configured(**fields: str) -> io.StringIO:
    """A stream that is logged to."""
    stream = io.StringIO()
    log.configure(Log.model_validate(fields), stream)
    return stream


def test_a_line_for_people() -> None:
    """Level, event, logger and fields, in one line without colours where nobody sees them."""
    stream = configured()
    log.logger("turbopump.server").info("listening", path="/tmp/x")

    [line] = stream.getvalue().splitlines()
    assert "[info" in line
    assert "listening" in line
    assert "[turbopump.server]" in line
    assert line.endswith("path=/tmp/x")
    assert "\x1b" not in line


def test_a_line_for_programs() -> None:
    """One JSON object a line."""
    stream = configured(format="json")
    log.logger("turbopump.server").warning("refused", count=5)

    [line] = map(json.loads, stream.getvalue().splitlines())
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "refused", "level": "warning", "logger": "turbopump.server", "count": 5}


def test_the_level_hides_what_is_below() -> None:
    """Errors stay."""
    stream = configured(level="error")
    log.logger("turbopump").warning("hidden")
    log.logger("turbopump").error("shown")

    assert "hidden" not in stream.getvalue()
    assert "shown" in stream.getvalue()


def test_other_libraries_log_in_the_same_way() -> None:
    """Complaints of asyncio and warnings must not get lost, nor break a JSON reader."""
    stream = configured(format="json")
    logging.getLogger("asyncio").error("Task %s failed", 7, extra={"colour": "red"})
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", stacklevel=1)

    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["event"] == "Task 7 failed"
    assert first["colour"] == "red"
    assert "old" in second["event"]


@pytest.mark.parametrize("format_", ["console", "json"])
def test_an_exception_comes_with_its_traceback(format_: str) -> None:
    """Where it was raised is the first question."""
    stream = configured(format=format_)
    try:
        json.loads("{")
    except ValueError:
        log.logger("turbopump").exception("failed")

    assert "JSONDecodeError" in stream.getvalue()
    assert "raw_decode" in stream.getvalue()


def test_what_the_engine_says_is_logged() -> None:
    """With its level and fields; a level nobody knows is worth attention."""
    stream = configured(format="json")
    for level in ("info", "shout"):
        log.Relay().say(Shouted(level, "too many clients", {"limit": "5"}))  # type: ignore[arg-type] # a fake

    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["level"], first["event"], first["limit"]) == ("info", "too many clients", "5")
    assert first["logger"] == "turbopump.engine"
    assert second["level"] == "warning"


def test_a_refusal_that_is_repeated_is_one_line_a_minute() -> None:
    """For each peer and cause; the next one says how many there were. Anything else is said each time."""
    stream, now = configured(format="json"), [0.0]
    relay = log.Relay(lambda: now[0])

    def say(event: str, **fields: str) -> None:
        relay.say(Shouted("error", event, fields))  # type: ignore[arg-type] # a fake

    for second in (0, 1, 59, 60, 61, 120, 121):
        now[0] = second
        say("peer_refused", peer="a", why="its file differs")
        say("peer_up", peer="a")
    say("peer_refused", peer="a", why="it speaks another version")
    say("peer_refused", peer="b", why="its file differs")
    told = [json.loads(line) for line in stream.getvalue().splitlines()]
    refused = [line for line in told if line["event"] == "peer_refused"]

    assert len(told) - len(refused) == 7
    assert [(line["peer"], line["why"], line.get("repeated")) for line in refused] == [
        ("a", "its file differs", None),
        ("a", "its file differs", 2),
        ("a", "its file differs", 1),
        ("a", "it speaks another version", None),
        ("b", "its file differs", None),
    ]


def test_refusals_that_are_remembered_are_bounded() -> None:
    """A peer that has the keys may think of ever new ones."""
    relay = log.Relay(lambda: 0.0)
    for number in range(2 * log.REPEATS_MAX):
        shouted = Shouted("error", "peer_refused", {"why": str(number)})
        relay.say(shouted)  # type: ignore[arg-type] # a fake

    assert len(relay._said) == log.REPEATS_MAX


def test_a_field_called_as_one_of_pythons_own_does_no_harm() -> None:
    """Plain logging raises KeyError for an extra field `name` or `args`."""
    stream = configured(format="json")
    shouted = Shouted("info", "accepted", {"name": "a", "args": "b"})
    log.Relay().say(shouted)  # type: ignore[arg-type] # a fake

    assert json.loads(stream.getvalue())["name"] == "a"


def test_a_client_cannot_write_lines_of_its_own() -> None:
    """Names and commands come from outside: line ends and colours are shown, not obeyed."""
    stream = configured()
    log.logger("turbopump").info("client", name="a\n2026 [error] forged\x1b[31m")
    log.logger("turbopump").info("a\nb\x1b[31m")

    first, second = stream.getvalue().splitlines()
    assert r"\n2026" in first
    assert r"a\nb" in second
    assert "\x1b" not in first + second


def test_an_embedding_program_keeps_its_logging(caplog: pytest.LogCaptureFixture) -> None:
    """Unless `configure` is called, a record goes where that program's records go."""
    with caplog.at_level(logging.INFO, "turbopump.server"):
        log.logger("turbopump.server").info("listening", path="/tmp/x")

    [record] = caplog.records
    assert record.name == "turbopump.server"
    assert "listening" in record.getMessage()
    assert "/tmp/x" in record.getMessage()


def test_stderr_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes to stdout is values."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log.configure(Log())
    log.logger("turbopump").info("here")

    assert "here" in stream.getvalue()
