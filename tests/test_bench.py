"""bench.py: the report says what was measured, how, and whether it means anything."""

from typing import Any

import pytest

from turbopump import bench
from turbopump.bench import report, run
from turbopump.errors import ConfigError, ConnectionLostError

OPTIONS = {
    "address": "/tmp/x",
    "protocol": "resp",
    "connections": 50,
    "depth": 16,
    "keys": 1000,
    "key_size": 16,
    "value_size": 100,
    "reads": 90,
    "seconds": 1.0,
    "rate": 0,
}
FIGURES: dict[str, Any] = {
    "options": OPTIONS,
    "build": {"profile": "release"},
    "requests": 1_234_567,
    "errors": 0,
    "misses": 12,
    "bad": 0,
    "unanswered": 0,
    "first_error": None,
    "client_cpu": 0.5,
    "server_cpu": None,
    "server_us_per_request": None,
    "other_cpu": None,
    "seconds": 1.0,
    "rate": 1_234_567.0,
    "latency_us": {
        "min": 1.0,
        "mean": 2.0,
        "p50": 3.0,
        "p90": 4.0,
        "p99": 5.0,
        "p99.9": 6.0,
        "p99.99": 7.0,
        "max": 8888.8,
    },
    "percentiles": [(0.0, 1.0), (100.0, 8888.8)],
}


def test_the_report_has_the_figures_and_the_conditions() -> None:
    """A rate without its conditions is a rumour."""
    text = report(FIGURES)

    for part in (
        "resp on /tmp/x",
        "50 connections",
        "depth 16",
        "90% reads",
        "1,234,567 requests/s",
        "8,888.8",
    ):
        assert part in text
    assert "as fast as it answers" in text


def test_a_fixed_rate_is_told() -> None:
    """Latency counts differently then."""
    assert "at 20,000 requests/s" in report(FIGURES | {"options": OPTIONS | {"rate": 20_000}})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"build": {"profile": "debug"}}, "note: a debug build measured this"),
        ({"client_cpu": 0.99}, "note: the generator itself was busy"),
        ({"other_cpu": 0.5}, "note: others kept 0.50 CPUs busy"),
        ({"errors": 3, "first_error": "-ERR no"}, "3 were refused"),
        ({"errors": 3, "first_error": "-ERR no"}, "note: the first error was: -ERR no"),
        ({"bad": 1}, "1 got a wrong value"),
        ({"unanswered": 5}, "5 were due and had no answer"),
        ({"server_us_per_request": 2.345}, "2.35 us of the server's CPU a request"),
    ],
)
def test_what_matters_is_told_when_it_is_so(change: dict[str, Any], words: str) -> None:
    """And only then."""
    assert words not in report(FIGURES)
    assert words in report(FIGURES | change)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ValueError("reads: is too much"), ConfigError),
        (ConnectionRefusedError("refused"), ConnectionLostError),
    ],
)
def test_errors_are_the_packages_own(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, expected: type[Exception]
) -> None:
    """The command line knows how to say them."""

    def load(_options: dict[str, object]) -> dict[str, object]:
        raise raised

    monkeypatch.setattr(bench, "load", load)
    with pytest.raises(expected, match=str(raised)):
        run(OPTIONS)
