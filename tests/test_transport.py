"""The transports' laboratory: what it says about a link is what the link does, and nothing of it is left.

Figures are for quiet machines; here only what must be so on any: a link of 10 Mbit/s never delivers more.
"""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
HOSTS = pytest.mark.usefixtures("hosts")
NARROW = {"rate_mbit": 10, "round_trip_ms": 20}


@pytest.fixture(autouse=True)
def loadtests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets tests import the load tests' modules, as these import each other."""
    monkeypatch.syspath_prepend(str(ROOT / "loadtests"))


@pytest.fixture(scope="module")
def lab() -> Path:
    """The laboratory's program, built as the Rust tests build it."""
    build = ["cargo", "build", "--locked", "--quiet", "--package", "turbopump-lab"]
    subprocess.run(build, cwd=ROOT, check=True)
    return ROOT / "target" / "debug" / "turbopump-lab"


@pytest.fixture(scope="module")
def hosts() -> None:
    """Skips where namespaces cannot be made: without root, and in many a container even with it."""
    name = f"turbopump-lab-{os.getpid()}-try"
    tries = [["netns", "add", name], ["-n", name, "tuntap", "add", "mode", "tun", "name", "wire"]]
    if os.geteuid() == 0 and shutil.which("ip"):
        able = all(subprocess.run(["ip", *words], check=False).returncode == 0 for words in tries)
        subprocess.run(["ip", "netns", "delete", name], check=False)
        if able:
            return
    pytest.skip("ip (iproute2) makes no network namespaces with TUN devices here: it needs root")


def namespaces() -> set[str]:
    """Those that this process has made and not removed."""
    if not shutil.which("ip"):
        return set()
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return {name for name in listed.split() if name.startswith(f"turbopump-lab-{os.getpid()}-")}


@pytest.fixture
def network(lab: Path) -> Iterator[Callable[..., Any]]:
    """Makes networks: `network(path)` is one to enter. At the end nothing may be left of any."""
    links = import_module("links")

    def make(path: Any, seed: int = 1) -> Any:
        return links.Network(path, seed=seed, limit_seconds=60, lab=lab)

    yield make
    assert not namespaces()


def tcp(lab: Path) -> str:
    """One of TCP's that whoever tests may use: the kernel may keep the others for root."""
    said = json.loads(subprocess.check_output([lab, "transports"]))
    return next(name for name in ("tcp-cubic", "tcp-bbr") if said[name] is None)


def measured(network: Any, role: int, **options: object) -> dict[str, Any]:
    """What one of two peers finds: 0 receives, 1 sends."""
    run = {"transport": tcp(network.lab), "limit_seconds": 30, **options}
    with import_module("links").peers(network, [run]) as pairs:
        found: dict[str, Any] = pairs[0][role].say()
    return found


@HOSTS
@pytest.mark.timeout(300)  # it may have to build
def test_a_link_is_as_slow_as_it_says(network: Callable[..., Any]) -> None:
    """Neither quicker there and back nor wider, and what it counts is what passed."""
    scenarios = import_module("scenarios")
    with network(scenarios.Link(**NARROW)) as narrow:
        asked = {"mode": "request-reply", "seconds": 0.3, "size": 64, "clients": 1}
        answered = measured(narrow, 1, **asked)["latency_us"]
        streamed = measured(narrow, 0, mode="bulk", seconds=1)
        link = narrow.end_link()

    # A loaded machine may make each of these worse.
    assert 20_000 <= answered["min"] < 100_000
    assert 1 <= streamed["goodput_mbit"] <= 10
    assert link["there"]["bytes"] > streamed["bytes"]
    assert link["there"]["lost"] == 0
    assert link["there"]["queue_bytes_most"] <= 25_000


@HOSTS
@pytest.mark.timeout(300)
def test_a_link_loses_what_it_is_told_to(network: Callable[..., Any]) -> None:
    """In both directions, and nothing else."""
    scenarios = import_module("scenarios")
    with network(scenarios.Link(**NARROW, loss_percent=100)) as broken:
        links = import_module("links")
        with pytest.raises(links.LabError, match=r"connecting|not over"):
            measured(broken, 1, mode="bulk", seconds=0.1, limit_seconds=0.5)
        link = broken.end_link()

    assert link["there"]["lost"] == link["there"]["packets"] > 0
    assert link["back"]["packets"] == link["back"]["lost"]


@HOSTS
@pytest.mark.timeout(300)
def test_nothing_is_left_after_a_failure(network: Callable[..., Any]) -> None:
    """Whether the failure is in what uses the network or in making it."""
    scenarios = import_module("scenarios")
    with pytest.raises(ZeroDivisionError), network(scenarios.Veth()) as veth:
        fail_if(namespaces() == set(veth.ends))
    assert not namespaces()

    links = import_module("links")
    impossible = network(scenarios.Link(**NARROW, loss_percent=101))
    with pytest.raises(links.LabError, match="loss_percent: 101 is not between"), impossible:
        pass


@pytest.mark.timeout(300)
def test_loopback_needs_no_root(network: Callable[..., Any]) -> None:
    """Nor anything else."""
    with network(import_module("scenarios").Loopback()) as loopback:
        sent = measured(loopback, 1, mode="bytes", bytes=1_000_000)
        beside = measured(loopback, 0, mode="beside", seconds=0.1, size=512, gap_us=1000)

    assert sent["bytes"] == 1_000_000
    assert beside["latency_us"]["count"] == 100
    assert beside["stream_mbit"] > 0


@pytest.mark.timeout(300)
def test_the_benchmark_writes_its_page(lab: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the transports that there are."""
    page = folder / "transport.md"
    transport = import_module("transport")
    short = ["--scenarios", "loopback", "--transports", "turbopump", tcp(lab), "--runs", "1"]
    short += ["--seconds", "0.1", "--retries", "0", "--output", str(page), "--lab", str(lab)]
    monkeypatch.setattr(sys, "argv", ["transport.py", *short])
    monkeypatch.setattr(import_module("bench"), "LOCK", folder / "lock")

    assert transport.main() == 0
    text = page.read_text()
    assert "### Goodput: loopback, one connection" in text
    for name in ("turbopump", tcp(lab)):
        assert text.count(f"\n| {name} | ") == 1


def fail_if(so: bool) -> None:  # noqa: FBT001 - it is all there is
    """Fails with an error that nothing else makes."""
    if so:
        raise ZeroDivisionError


@pytest.fixture
def found() -> tuple[ModuleType, Any]:
    """The page's module, and results to enter runs in."""
    module = import_module("transport_page")
    return module, module.Results()


def run(goodput: float, others: float = 0.0) -> dict[str, Any]:
    """A run of a stream."""
    late = {"late_us": {"p99": 42.0}}
    return {"goodput_mbit": goodput, "started_mbit": None, "other_cpu": others, "link": late}


@pytest.mark.parametrize(("ours", "word"), [(95.0, "aim"), (91.0, "must"), (89.0, "**missed**")])
def test_a_figure_is_judged_by_what_it_must_be(found: tuple[ModuleType, Any], ours: float, word: str) -> None:
    """By its median; the others are only beside it."""
    module, results = found
    scenario = module.SCENARIOS[0]
    for goodput in (1.0, ours, 99.0):
        results.add(scenario, "turbopump", run(goodput))
        results.add(scenario, "udt", run(50.0))
    page = module.page(results, {"CPU": "a fast one"}, "How.")

    assert "- CPU: a fast one" in page
    assert f"| 90 or more | 94 or more | {ours:.1f} | 50.0 | {word} |" in page
    assert f"| turbopump | {ours:.1f} (1.0 to 99.0) |  | 1.00 | 42 | 0.00 |" in page
    assert f"| udt | 50.0 |  | {50 / ours:.2f} | 42 | 0.00 |" in page


def test_what_is_not_there_is_told(found: tuple[ModuleType, Any]) -> None:
    """A transport that is missing, a run that failed, a sender that never noticed, a noisy machine."""
    module, results = found
    vanish = next(scenario for scenario in module.SCENARIOS if scenario.name == "vanish")
    noticed = {"noticed_seconds": math.inf, "other_cpu": 1.5, "link": {"late_us": {"p99": 42.0}}}
    results.add(vanish, "tcp-cubic", noticed)
    results.missing["udt"] = "libudt.so.0 is missing"
    results.fail(vanish, "srt", "run 1: accepting: no")
    page = module.page(results, {}, "How.")

    assert "- not in it: udt: libudt.so.0 is missing" in page
    assert "| tcp-cubic | over 60 |  | 42 | 1.50, noisy |" in page
    assert "- vanish, srt, run 1: accepting: no" in page
    assert "| 5 or less | 3 or less |  | over 60 | not measured |" in page


def test_a_queue_holds_a_round_trip() -> None:
    """What the figures in the issue were measured with."""
    conditions = import_module("scenarios").Link(100, 20, 0.1).conditions()

    assert conditions == {
        "rate_mbit": 100,
        "queue_bytes": 250_000,
        "delay_us": 10_000,
        "loss_percent": 0.1,
    }
