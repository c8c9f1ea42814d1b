"""What `make bench-transport` measures: the paths, what runs over each, and what ours must come to.

Data only. transport.py runs it, transport_page.py words it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OURS = "turbopump"
TRANSPORTS = (OURS, "tcp-cubic", "tcp-bbr", "udt", "srt")
"""In the order of the page. Those that the laboratory does not know or this machine lacks are left out."""

RIVAL = "tcp-cubic"
"""Who shares the link when fairness is measured."""

VANISHED_SECONDS_MAX = 60.0
"""A sender that has noticed nothing by then is not waited for."""


@dataclass(frozen=True)
class Link:
    """An emulated link, the same in both directions; its queue holds what it carries in a round trip."""

    rate_mbit: float
    round_trip_ms: float
    loss_percent: float = 0.0

    def conditions(self) -> dict[str, float | int]:
        """It as the laboratory names it."""
        return {
            "rate_mbit": self.rate_mbit,
            "queue_bytes": round(self.rate_mbit * 1e6 / 8 * self.round_trip_ms / 1e3),
            "delay_us": round(self.round_trip_ms * 1e3 / 2),
            "loss_percent": self.loss_percent,
        }


class Veth:
    """A bare pair of virtual interfaces: as fast as the kernel copies."""


class Loopback:
    """One machine by itself; no namespaces."""


Path = Link | Veth | Loopback


@dataclass(frozen=True)
class Figure:
    """A figure of a run: what `transport.py` found there, in other units."""

    title: str
    path: tuple[str, ...]
    scale: float = 1.0
    digits: int = 1
    must: tuple[float, float] | None = None
    """Ours must be between these."""
    aim: tuple[float, float] | None = None

    def of(self, figures: Mapping[str, Any]) -> float:
        """Its value in a run; NaN if the run has none."""
        value: Any = figures
        for name in self.path:
            value = value[name]
        return math.nan if value is None else float(value) * self.scale


def at_least(value: float) -> tuple[float, float]:
    """More is better."""
    return (value, math.inf)


def at_most(value: float) -> tuple[float, float]:
    """Less is better."""
    return (-math.inf, value)


@dataclass(frozen=True)
class Scenario:
    """Something that every transport does in turn.

    Attributes:
        name: For the command line.
        title: For the page.
        path: What it runs over.
        options: What the laboratory's peers are told, beside the transport.
        figures: What is taken from a run.
        length: Its seconds, as a multiple of the command line's.
        rival: A second sender of `RIVAL` shares the link.
        needs_messages: For transports whose messages can share a connection.
    """

    name: str
    title: str
    path: Path
    options: Mapping[str, object]
    figures: tuple[Figure, ...]
    length: float = 1.0
    rival: bool = False
    needs_messages: bool = field(default=False)


def _goodput(must: float, aim: float) -> tuple[Figure, ...]:
    goodput = Figure("goodput, Mbit/s", ("goodput_mbit",), must=at_least(must), aim=at_least(aim))
    return (goodput, Figure("after 3 s, Mbit/s", ("started_mbit",)))


def _milliseconds(must: Mapping[str, float], aim: Mapping[str, float]) -> tuple[Figure, ...]:
    return tuple(
        Figure(
            f"{name}, ms",
            ("latency_us", name),
            scale=1e-3,
            must=at_most(must[name]) if name in must else None,
            aim=at_most(aim[name]) if name in aim else None,
        )
        for name in ("p50", "p99", "p99.9")
    )


_SMALL = {"size": 512}
_BULK = {"mode": "bulk"}
_CLEAN = Link(100, 20)
_STREAM = Figure("stream, Mbit/s", ("stream_mbit",))
_BESIDE = (*_milliseconds({"p99": 15}, {"p99": 12})[:2], _STREAM)
_IDLE = (
    Figure("p50, us", ("latency_us", "p50"), must=at_most(60), aim=at_most(45)),
    Figure("p99, us", ("latency_us", "p99"), must=at_most(200)),
)

SCENARIOS = (
    Scenario(
        "20ms",
        "Goodput: 20 ms, 0.1% loss, 100 Mbit/s",
        Link(100, 20, 0.1),
        _BULK,
        _goodput(90, 94),
        length=2,
    ),
    Scenario(
        "50ms",
        "Goodput: 50 ms, 1% loss, 200 Mbit/s",
        Link(200, 50, 1.0),
        _BULK,
        _goodput(170, 180),
        length=2,
    ),
    Scenario(
        "100ms",
        "Goodput: 100 ms, 2% loss, 100 Mbit/s",
        Link(100, 100, 2.0),
        _BULK,
        _goodput(75, 82),
        length=2,
    ),
    Scenario(
        "loopback",
        "Goodput: loopback, one connection",
        Loopback(),
        _BULK,
        (Figure("Gbit/s", ("goodput_mbit",), 1e-3, 2, must=at_least(8), aim=at_least(14)),),
    ),
    Scenario(
        "cpu",
        "CPU for 1 GB over loopback, both ends",
        Loopback(),
        {"mode": "bytes", "bytes": 1_000_000_000},
        (
            Figure("CPU s", ("cpu_seconds",), digits=2, must=at_most(1.2), aim=at_most(0.8)),
            Figure("of it sending", ("sender_cpu_seconds",), digits=2),
        ),
    ),
    Scenario(
        "requests",
        "512 B request and reply, 20 clients: 50 ms, 1% loss, 200 Mbit/s",
        Link(200, 50, 1.0),
        {"mode": "request-reply", "clients": 20, **_SMALL},
        _milliseconds({"p99": 115, "p99.9": 175}, {"p99": 65}),
        length=2,
    ),
    Scenario(
        "beside",
        "512 B message beside a stream on another connection: 20 ms, 100 Mbit/s",
        _CLEAN,
        {"mode": "beside", "gap_us": 10_000, **_SMALL},
        _BESIDE,
    ),
    Scenario(
        "beside-same",
        "512 B message beside a stream on the same connection: 20 ms, 100 Mbit/s",
        _CLEAN,
        {"mode": "beside", "gap_us": 10_000, "same_connection": True, **_SMALL},
        _BESIDE,
        needs_messages=True,
    ),
    Scenario(
        "veth-512",
        "One-way message of 512 B on an idle veth pair",
        Veth(),
        {"mode": "messages", "gap_us": 1_000, **_SMALL},
        _IDLE,
    ),
    Scenario(
        "veth-1456",
        "One-way message of 1456 B, a full packet of UDT, on an idle veth pair",
        Veth(),
        {"mode": "messages", "gap_us": 1_000, "size": 1456},
        _IDLE,
    ),
    Scenario(
        "fairness",
        f"Share of a link with {RIVAL}, after 3 s: 20 ms, 100 Mbit/s",
        _CLEAN,
        _BULK,
        (
            Figure("share, %", ("share_percent",), digits=0, must=(30, 65), aim=(40, 55)),
            Figure("it, Mbit/s", ("started_mbit",)),
            Figure(f"{RIVAL}, Mbit/s", ("rival_mbit",)),
        ),
        length=4,
        rival=True,
    ),
    Scenario(
        "vanish",
        "The peer's machine vanishes while a stream runs",
        Link(10, 20),
        {"mode": "vanish"},
        (Figure("noticed after, s", ("noticed_seconds",), must=at_most(5), aim=at_most(3)),),
    ),
)
