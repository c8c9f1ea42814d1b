"""`turbopump bench`: a run of the native load generator, and its report for people."""

from collections.abc import Iterator, Mapping
from typing import Any

from turbopump._native import build_info, load
from turbopump.errors import ConfigError, ConnectionLostError

LATENCIES = ("min", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max")
COUNTS = {
    "misses": "found nothing",
    "bad": "got a wrong value",
    "errors": "were refused",
    "unanswered": "were due and had no answer at the end",
}
BUSY = 0.97  # CPUs: one thread cannot do more
NOISE = 0.15  # CPUs of other processes that are seen in the figures


def run(options: Mapping[str, Any]) -> dict[str, Any]:
    """Loads a server and measures it. Blocks until the run is over.

    Args:
        options: Those of `turbopump._native.load`.

    Returns:
        Its figures, with the options and the build that measured.

    Raises:
        ConfigError: An option is out of range.
        ConnectionLostError: The server cannot be reached or went away.
    """
    try:
        figures = load({**options, "pids": list(options.get("pids", ()))})
    except ValueError as error:
        raise ConfigError([str(error)]) from error
    except OSError as error:
        raise ConnectionLostError(f"no server answers at {options.get('address')}: {error}") from error
    return {"options": dict(options), "build": build_info(), **figures}


def report(figures: Mapping[str, Any]) -> str:
    """The figures as a table.

    Args:
        figures: What `run` returned.
    """
    options, latency = figures["options"], figures["latency_us"]
    rate = f"at {options['rate']:,} requests/s" if options["rate"] else "as fast as it answers"
    lines = [
        f"{options['protocol']} on {options['address']}, {options['connections']} connections, {rate}",
        f"depth {options['depth']}, {options['reads']}% reads of {options['value_size']} B values",
        "",
        f"{figures['rate']:>12,.0f} requests/s in {figures['seconds']:.1f} s",
        *(f"{figures[name]:>12,} {words}" for name, words in COUNTS.items() if figures[name]),
        "",
        "  ".join(f"{name:>9}" for name in LATENCIES),
        "  ".join(f"{latency[name]:>9,.1f}" for name in LATENCIES) + "  us",
        *_cpu(figures),
        *(f"note: {note}" for note in _notes(figures)),
    ]
    return "\n".join(lines)


def _cpu(figures: Mapping[str, Any]) -> Iterator[str]:
    if figures["server_us_per_request"] is not None:
        yield ""
        yield f"{figures['server_us_per_request']:>12.2f} us of the server's CPU a request"


def _notes(figures: Mapping[str, Any]) -> Iterator[str]:
    """What a reader must know before believing the figures."""
    if figures["first_error"]:
        yield f"the first error was: {figures['first_error']}"
    if figures["client_cpu"] > BUSY and not figures["options"]["rate"]:
        yield "the generator itself was busy all the time: the server can do more"
    if (figures["other_cpu"] or 0) > NOISE:
        yield f"others kept {figures['other_cpu']:.2f} CPUs busy: repeat it on a quiet machine"
    if figures["build"]["profile"] != "release":
        yield "a debug build measured this: the figures mean nothing"
