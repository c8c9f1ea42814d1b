"""What `make bench` and `make bench-cluster` measure: workloads, the figures of each, what they must come to.

Data only. bench.py and cluster.py run it, results.py words it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Figures = Mapping[str, Any]
"""What the load generator returned: `turbopump._native.load`."""

KEYS = 100_000
READS = {"GET": 100, "SET": 0}


@dataclass(frozen=True)
class Target:
    """A ratio to another server's figure; without what it must be, it is only told."""

    must: float | None = None
    aim: float | None = None


@dataclass(frozen=True)
class Figure:
    """One of the load generator's figures."""

    title: str
    path: tuple[str, ...]
    higher_is_better: bool = False
    targets: Mapping[str, Target] = field(default_factory=dict)
    digits: int = 1

    def of(self, figures: Figures) -> float:
        """Its value in a run."""
        value: Any = figures
        for name in self.path:
            value = value[name]
        return float(value)

    def reaches(self, ratio: float, wanted: float) -> bool:
        """Whether a ratio is as good as another."""
        return ratio >= wanted if self.higher_is_better else ratio <= wanted


@dataclass(frozen=True)
class Workload:
    """A way to load servers, the same for each of them; the first is ours."""

    name: str
    title: str
    options: Mapping[str, object]
    servers: tuple[str, ...]
    figures: tuple[Figure, ...]
    operations: tuple[str, ...] = ("GET", "SET")


OTHERS = Figure("CPU of others", ("other_cpu",), digits=2)
NOISE = 0.15
"""CPUs that others keep busy; above it a run says as much about them."""

ALL = ("turbopump", "redis", "memcached")


def rate(must: float, aim: float, memcached: float) -> Figure:
    """Requests a second, with the ratios to Redis and to memcached."""
    targets = {"redis": Target(must, aim), "memcached": Target(memcached)}
    return Figure("requests/s", ("rate",), higher_is_better=True, targets=targets, digits=0)


def latency(percentile: str, **targets: Target) -> Figure:
    """A percentile in microseconds."""
    return Figure(f"{percentile}, us", ("latency_us", percentile), targets=targets)


def server_cpu(**targets: Target) -> Figure:
    """CPU time of the server for a request, in microseconds: what survives a noisy machine."""
    return Figure("server CPU a request, us", ("server_us_per_request",), targets=targets, digits=2)


WORKLOADS = (
    Workload(
        "one",
        "1 connection, ping-pong",
        {"connections": 1},
        ALL,
        (rate(1.25, 1.36, 1.1), latency("p50"), server_cpu()),
    ),
    Workload(
        "fifty",
        "50 connections",
        {"connections": 50},
        ALL,
        (rate(1.3, 1.7, 1.3), latency("p99"), server_cpu(redis=Target(0.8, 0.6))),
    ),
    Workload(
        "fifty-deep",
        "50 connections, pipeline 16",
        {"connections": 50, "depth": 16},
        ALL,
        (rate(1.6, 2.7, 1.4), latency("p99"), server_cpu()),
    ),
    Workload(
        "one-deep",
        "1 connection, pipeline 64",
        {"connections": 1, "depth": 64},
        ALL,
        (rate(1.5, 2.0, 1.4), latency("p99"), server_cpu()),
    ),
    Workload(
        "one-shot",
        "one command a connection (`nc`)",
        {"connections": 1, "one_shot": True},
        ALL,
        (latency("p50", redis=Target(0.65, 0.55)), latency("p99"), server_cpu()),
        operations=("GET",),
    ),
    Workload(
        "open",
        "20k requests/s, our Python busy 2 ms of every 10, the others quiet",
        {"connections": 50, "rate": 20_000},
        ("turbopump, busy loop", "redis"),
        (latency("p90", redis=Target(1.3, 1.0)), latency("p99")),
        operations=("GET",),
    ),
    *(
        Workload(
            f"busy-{connections}",
            f"{connections} connection{'s' * (connections > 1)}, Python that computes beside the reactor",
            {"connections": connections},
            ("busy thread in the node", "busy process beside it"),
            (latency("p99", **{"busy process beside it": Target(1.2)}), latency("p50")),
            operations=("GET",),
        )
        for connections in (1, 50)
    ),
)

MEMORY_KEYS = 1_000_000
MEMORY_FIGURE = Figure("resident bytes a key", (), targets={"redis": Target(0.85, 0.7)}, digits=0)

LOCAL = "turbopump, 1 node"
CLUSTERS = ("turbopump, 3 nodes", LOCAL, "redis, WAIT 1", "etcd")
NATIVE = "native generator"
"""It asks our own nodes alone, whose protocol it speaks; the small one asks all."""


def clustered(title: str, connections: int, *, native: bool) -> Workload:
    """Writes to clusters: beside one node, with what replicating may cost at most, or beside other stores."""
    servers = CLUSTERS[:2] if native else CLUSTERS
    told = {LOCAL: Target()} if native else {name: Target() for name in CLUSTERS[2:]}
    quick = {LOCAL: Target(3.0)} if native else told
    many = {LOCAL: Target(0.5)} if native else told
    figures = (
        latency("p50", **(quick if connections == 1 else {})),
        latency("p99"),
        Figure(
            "writes/s",
            ("rate",),
            higher_is_better=True,
            targets=many if connections > 1 else {},
            digits=0,
        ),
        Figure("CPU s for 100,000 writes", ("server_s_per_100k",), targets=told, digits=2),
    )
    options = {"connections": connections, "native": native}
    return Workload(title, title, options, servers, figures, operations=("SET",))


CLUSTER_WORKLOADS = (
    clustered(f"1 connection, {NATIVE}", 1, native=True),
    clustered(f"50 connections, {NATIVE}", 50, native=True),
    clustered("1 connection, small generator", 1, native=False),
    clustered("50 connections, small generator", 50, native=False),
)
