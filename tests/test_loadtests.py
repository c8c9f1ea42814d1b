"""The load tests run, and say what they should: what they find is for quiet machines."""

import os
import random
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

LOADTESTS = Path(__file__).resolve().parent.parent / "loadtests"


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that kills nodes."""
    monkeypatch.syspath_prepend(str(LOADTESTS))
    return import_module("kills")


@pytest.fixture
def sync_page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that makes the page about healing."""
    monkeypatch.syspath_prepend(str(LOADTESTS))
    return import_module("sync_page")


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The small load generator."""
    monkeypatch.syspath_prepend(str(LOADTESTS))
    return import_module("writes")


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module that makes the page, as bench.py imports it."""
    monkeypatch.syspath_prepend(str(LOADTESTS))
    return import_module("results")


def figures(rate: float, others: float = 0.0) -> dict[str, Any]:
    """A run of the load generator."""
    return {
        "rate": rate,
        "latency_us": {"p50": 10.0, "p90": 10.0, "p99": 10.0},
        "server_us_per_request": 1e6 / rate,
        "client_cpu": 0.5,
        "other_cpu": others,
    }


def measured(results: ModuleType, ours: list[float], theirs: list[float], others: float = 0.0) -> Any:
    """Runs over 50 connections."""
    found = results.Results()
    workload = next(workload for workload in results.WORKLOADS if workload.name == "fifty")
    for server, rates in (("turbopump", ours), ("redis", theirs)):
        for rate in rates:
            found.add(workload, "GET", server, figures(rate, others))
    return found


@pytest.mark.parametrize(
    ("ours", "words"),
    [(170_000.0, ["aim", "aim"]), (135_000.0, ["must", "must"]), (110_000.0, ["**missed**"] * 2)],
)
def test_a_ratio_is_judged_by_what_it_must_be(results: ModuleType, ours: float, words: list[str]) -> None:
    """More requests are better, and less CPU is: each figure knows which."""
    found = results.ratios(measured(results, [1.0, ours, 900_000.0], [100_000.0]))

    assert [ratio.figure.title for ratio in found] == ["requests/s", "server CPU a request, us"]
    assert [ratio.value for ratio in found] == pytest.approx([ours / 1e5, 1e5 / ours])
    assert [ratio.reached for ratio in found] == words
    assert [ratio.missed for ratio in found] == [word == "**missed**" for word in words]


def test_a_noisy_machine_is_told(results: ModuleType) -> None:
    """Its figures are those of whoever made the noise."""
    page = results.page(measured(results, [2e5], [1e5], others=0.5), {"CPU": "a fast one"}, "How.")

    assert "- CPU: a fast one" in page
    assert page.count("aim, noisy |") == 2
    assert "| turbopump | GET | 200,000 (200,000 to 200,000) |" in page


def run(program: list[str], *, codes: tuple[int, ...] = (0,), **environment: str) -> str:
    """What a program of the load tests prints."""
    done = subprocess.run(program, capture_output=True, text=True, check=False, env=os.environ | environment)
    assert done.returncode in codes, done.stderr
    return done.stdout


def test_the_benchmark_writes_its_page(folder: Path) -> None:
    """With whatever servers are installed, and without waiting for a benchmark that somebody runs."""
    page = folder / "results.md"
    short = ["--rounds", "1", "--seconds", "0.05", "--retries", "0", "--output", str(page)]
    bench = [sys.executable, str(LOADTESTS / "bench.py"), *short, "--only", "one", "one-shot", "busy-1"]
    run(bench, TMPDIR=str(folder))

    text = page.read_text()
    assert "### 1 connection, ping-pong" in text
    assert text.count("| turbopump | GET |") == 2
    assert "| busy process beside it |" in text


def test_large_values_are_measured() -> None:
    """A machine that is busy may keep the other client waiting: that ends with 1, and says why."""
    short = ["--sizes", "3MiB", "1500000", "--seconds", "0.2", "--retries", "0"]
    said = run([sys.executable, str(LOADTESTS / "large.py"), *short], codes=(0, 1))

    assert "3 MiB" in said
    assert "1.431 MiB" in said


def test_locust_users_are_measured_in_microseconds(node: Any) -> None:
    """Its own table says 0 ms."""
    locust = [sys.executable, "-m", "locust", "-f", str(LOADTESTS / "kv.py"), "--headless", "--only-summary"]
    said = run([*locust, "--users", "2", "--run-time", "3s", "--keys", "100", "--host", node.socket])

    table = said[said.index("latency in us") :].splitlines()
    assert [line.split()[0] for line in table[1:3]] == ["read", "write"]
    assert float(table[1].split()[2].replace(",", "")) > 1


def test_what_was_acknowledged_last_must_be_there(kills: ModuleType) -> None:
    """Or what failed after it, which may have happened; what failed before it may not."""
    ledger, old, new = kills.Ledger(), kills.Write(b"old", "a", "1-1"), kills.Write(b"new", "b", "2-1")
    ledger.doubt("key", kills.Write(b"unsure", "c"), "unavailable")
    assert not ledger.lacks("key", None)
    ledger.acknowledge("key", old)
    assert [value for value in (b"old", b"unsure", None) if ledger.lacks("key", value)] == [b"unsure", None]
    ledger.doubt("key", kills.Write(None, "c"), "connection_lost")
    assert [value for value in (b"old", b"new", None) if ledger.lacks("key", value)] == [b"new"]
    ledger.acknowledge("key", new)
    assert [value for value in (b"old", b"new", None) if ledger.lacks("key", value)] == [b"old", None]
    assert (ledger.answers, ledger.failures) == (2, {"unavailable": 1, "connection_lost": 1})


def test_a_delete_that_finds_nothing_promises_nothing(kills: ModuleType) -> None:
    """It is counted where something had been acknowledged."""
    ledger = kills.Ledger()
    ledger.found_nothing("key", kills.Write(None, "a"))
    assert ledger.blind_deletes == 0
    ledger.acknowledge("key", kills.Write(b"value", "a", "1-1"))
    ledger.found_nothing("key", kills.Write(None, "b"))
    assert ledger.blind_deletes == 1
    assert not ledger.lacks("key", b"value")
    assert not ledger.lacks("key", None)
    assert ledger.lacks("key", b"other")


def test_nodes_are_killed_and_nothing_is_lost(folder: Path) -> None:
    """Two kills; `make kills` has more patience."""
    said = run([sys.executable, str(LOADTESTS / "kills.py"), "--kills", "2"], TMPDIR=str(folder))

    assert said.splitlines()[-1].startswith("2 kills, seed 1: ")
    assert said.endswith(", 0 lost\n")


def window(*points: tuple[float, float], requests: int = 100) -> dict[str, Any]:
    """A run of the load generator, as far as percentiles go."""
    return {"percentiles": list(points), "requests": requests - 1, "unanswered": 1}


def test_windows_count_with_their_requests(sync_page: ModuleType) -> None:
    """The percentile of all of them is not the median of their percentiles."""
    quick, slow = window((50.0, 10.0), (99.0, 20.0), (100.0, 30.0)), window((50.0, 500.0), (100.0, 900.0))

    assert sync_page.merged([quick], 50.0) == 10.0
    assert sync_page.merged([quick, quick], 99.0) == 20.0
    assert sync_page.merged([quick, slow], 50.0) == 30.0
    assert sync_page.merged([quick, slow], 75.0) == 500.0
    assert sync_page.merged([quick, slow], 99.0) == 900.0
    assert sync_page.merged([quick, window((100.0, 900.0), requests=1)], 99.0) == 30.0


def test_the_cost_of_more_data_is_told(sync_page: ModuleType) -> None:
    """Beside that of more differences, in the table and in the picture."""
    costs = {(1000, 1): 2000, (1000, 10): 2500, (100_000, 1): 2000, (100_000, 10): 5000}
    healings = [sync_page.Healing(*of, 0.1, 0.2, cost, 2, of[1]) for of, cost in costs.items()]
    client = sync_page.Client(50.0, 100.0, 60.0, 120.0)
    transfer = sync_page.Transfer(1000, 200, 0.5, 0.4, 2.0, 3456, 3, 2000, 300_000, client, client)
    page = sync_page.page([transfer], healings, {"CPU": "a fast one"}, "sync.svg")

    bytes_and_seconds = "1.5 (1.0 to 2.0) times the bytes and 1.0 (1.0 to 1.0) times the seconds."
    assert f"100 times the data cost {bytes_and_seconds}" in page
    assert "| 100,000 | 10 | 0.10 | 0.20 | 5,000 | 500 | 2 | 10 |" in page
    assert "| 1,000 | 0.5 | 0.40 | 200 | 2.00 | 400 | 3,456 | 3 | 2.00 | 300 | 50 | 50 | 100 |" in page
    assert sync_page.plot(healings).count("<polyline") == 2
    widths = {line.count("|") for line in page.splitlines() if line.startswith("|")}
    assert widths == {len(sync_page.TRANSFER_HEAD) + 1, len(sync_page.HEALING_HEAD) + 1}


def test_healing_is_measured(folder: Path) -> None:
    """A small blank node, and few differences: the page and its picture are there."""
    page = folder / "sync.md"
    short = ["--sizes", "1000", "--differences", "20", "--repeat", "1", "--output", str(page)]
    run([sys.executable, str(LOADTESTS / "sync.py"), *short], TMPDIR=str(folder))

    assert "\n| 1,000 | 20 | " in page.read_text()
    assert "1,000 keys on each node" in page.with_suffix(".svg").read_text()


@pytest.mark.parametrize(
    ("wire", "answer"),
    [
        ("Resp", b"+OK\r\n"),
        ("RespWait", b"+OK\r\n:2\r\n"),
        ("Grpc", bytes.fromhex("000000040000000000 00000a000000000001") + b"\0\0\0\0\x05hello"),
    ],
)
def test_an_answer_ends_where_it_ends(writes: ModuleType, wire: str, answer: bytes) -> None:
    """In whatever pieces it comes, for one write after the other."""
    side = getattr(writes, wire)()
    side.hello()
    for stream in (1, 3):
        side.write(b"key", b"value")
        if wire == "Grpc":  # the last byte of the second frame's head is the stream; headers end the answer
            answer = answer[:17] + bytes([stream]) + answer[18:28] + bytes([0, 0, 0, 1, 5, 0, 0, 0, stream])
        assert [side.take(answer[at : at + 1]) for at in range(len(answer))].index(True) == len(answer) - 1


@pytest.mark.parametrize(
    ("wire", "answer"),
    [
        ("Resp", b"-ERR no\r\n"),
        ("RespWait", b"-ERR no\r\n"),
        ("RespWait", b"+OK\r\n:0\r\n"),
        ("Grpc", bytes.fromhex("000000010500000001")),
        ("Grpc", bytes.fromhex("000000070000000000")),
    ],
)
def test_a_refusal_is_no_answer(writes: ModuleType, wire: str, answer: bytes) -> None:
    """Too few replicas, headers without a message, a connection that the server ends."""
    side = getattr(writes, wire)()
    side.write(b"key", b"value")
    with pytest.raises(writes.RefusedError):
        side.take(answer)


def test_requests_have_their_lengths(writes: ModuleType) -> None:
    """A key of 16 bytes, a value of 100 that begins with it."""
    key, value = writes.pair(random.Random(1), 1000)
    assert (len(key), len(value), value[:16]) == (16, 100, key)
    assert writes.Resp().write(b"k", b"vv") == b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\nvv\r\n"
    request = writes.Grpc().write(b"k", b"vv")
    length = int.from_bytes(request[:3], "big")
    assert (
        request[9 + length :] == bytes.fromhex("00000c 00 01 00000001 00 00000007") + b"\x0a\x01k\x12\x02vv"
    )


def test_figures_are_those_of_the_native_generator(writes: ModuleType) -> None:
    """Nanoseconds become microseconds, and CPU time is a write's."""
    found = writes.figures([3000, 1000, 2000, 4000], 2.0, 0.008, 1.0, -0.1)

    assert (found["rate"], found["server_us_per_request"], found["client_cpu"]) == (2.0, 2000.0, 0.5)
    assert (found["latency_us"]["p50"], found["latency_us"]["p99"], found["other_cpu"]) == (3.0, 4.0, 0.0)


def test_a_ratio_without_a_limit_is_only_told(results: ModuleType) -> None:
    """Beside Redis and etcd nothing must hold; beside one node it must."""
    found = results.Results()
    workloads = import_module("workloads").CLUSTER_WORKLOADS
    for workload in workloads:
        for server, rate in (("turbopump, 3 nodes", 1e4), ("turbopump, 1 node", 5e4), ("etcd", 1e3)):
            if server in workload.servers:
                found.add(workload, "SET", server, figures(rate) | {"server_s_per_100k": 1e5 / rate})
    ratios = results.ratios(found, workloads)

    assert [(ratio.other, ratio.missed) for ratio in ratios if ratio.target.must] == [
        ("turbopump, 1 node", False),
        ("turbopump, 1 node", True),
    ]
    page = results.page(found, {}, "How.", title="Replicated writes", workloads=workloads)
    assert page.startswith("# Replicated writes\n")
    assert "| etcd | 10,000 | 1,000 | 10.00 |  |  |  |" in page
    assert "**missed** |" in page


def test_replicated_writes_are_measured(folder: Path) -> None:
    """With our own sides, whatever else is installed."""
    page = folder / "cluster.md"
    short = ["--rounds", "1", "--seconds", "0.1", "--retries", "0", "--output", str(page)]
    sides = ["--only", "turbopump, 3 nodes", "turbopump, 1 node"]
    run([sys.executable, str(LOADTESTS / "cluster.py"), *short, *sides], TMPDIR=str(folder))

    assert page.read_text().count("| turbopump, 3 nodes | SET |") == 4
