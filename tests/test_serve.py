"""serve.py: a node as a process: ready when it says so, drained when asked, gone when it must be."""

import json
import resource
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from conftest import Serve, Served
from turbopump import Client, TurbopumpError
from turbopump.serve import raise_descriptor_limit


def connected(served: Served) -> socket.socket:
    """A raw client."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)
    client.connect(served.socket)
    return client


def test_it_is_ready_when_it_says_so(serve: Serve) -> None:
    """The first connection after READY=1 is served."""
    served = serve().ready()

    with Client(served.socket) as client:
        client.put("a", "1")
        assert client.get("a") == b"1"
    assert "listening" in served.text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(serve: Serve, number: signal.Signals) -> None:
    """With 0, without its socket file, and systemd knows."""
    served = serve().ready()
    with connected(served):
        served.signal(number)

        assert served.notified().startswith("STOPPING=1")
        assert served.ended() == 0
    assert not Path(served.socket).exists()
    assert "clean=True" in served.text()


def test_what_was_accepted_is_answered(serve: Serve) -> None:
    """A pipeline that is on its way when the signal comes."""
    served = serve().ready()
    with connected(served) as client:
        count = 2_000
        client.sendall(b"keep||\n" + b"".join(b"write|name=%d|x\n" % number for number in range(count)))
        answer = client.recv(1)  # what was sent before it has been read in part, at least
        served.signal(signal.SIGTERM)
        while chunk := client.recv(1 << 16):
            answer += chunk

    lines = answer.splitlines()
    assert lines[0] == b"ok|"
    assert all(line.startswith(b"ok|version=") for line in lines[1:])
    assert answer.endswith(b"\n")
    assert served.ended() == 0


def test_a_second_signal_ends_it_at_once(serve: Serve) -> None:
    """With 1: somebody was not answered."""
    served = serve({"drain_seconds": 3600}).ready()
    with connected(served) as client:
        client.sendall(b"write|name=half length=1000|half")
        with Client(served.socket) as other:  # answered after the first has been read
            other.ping()
        served.signal(signal.SIGTERM)
        assert served.notified().startswith("STOPPING=1")
        served.signal(signal.SIGTERM)

        assert served.ended() == 1


def test_the_deadline_ends_it(serve: Serve) -> None:
    """A client that waits for ever does not keep the process."""
    served = serve({"drain_seconds": 0.05}).ready()
    with connected(served) as client:
        client.sendall(b"write|name=a length=10|half")
        with Client(served.socket) as other:
            other.ping()
        served.signal(signal.SIGTERM)

        assert served.ended() == 1


def test_a_client_that_is_told_shutdown(serve: Serve) -> None:
    """Redis's own way."""
    served = serve().ready()
    with connected(served) as client:
        client.sendall(b"SHUTDOWN\r\n")
        answer = client.recv(100)

        assert served.ended() == 0
    assert answer in {b"+OK\r\n", b""}


def test_a_killed_node_leaves_a_file_that_the_next_one_replaces(serve: Serve, folder: Path) -> None:
    """No cleaning up by hand after a crash."""
    path = str(folder / "s")
    first = serve(None, "--socket", path).ready()
    first.process.kill()
    first.ended()
    assert Path(path).exists()

    serve(None, "--socket", path).ready()
    with Client(path) as client:
        client.ping()


def test_a_live_node_is_refused(serve: Serve) -> None:
    """And goes on serving."""
    first = serve().ready()
    second = serve(None, "--socket", first.socket)

    assert second.notified() == ""
    assert second.ended() == 2
    assert "another node serves there" in second.text()
    with Client(first.socket) as client:
        client.ping()


def test_a_wrong_configuration_starts_nothing(serve: Serve) -> None:
    """All that is wrong is on stderr, and nothing else."""
    served = serve({"limits": {"max_key": 0}, "colour": "red"})

    assert served.notified() == ""
    assert served.ended() == 2
    assert served.text().splitlines() == [
        "turbopump: limits.max_key = 0: write 1 or more",
        "turbopump: colour: unknown field; did you mean cluster?",
    ]


def test_logs_for_programs(serve: Serve) -> None:
    """Every line is an object, from the first to the last."""
    served = serve({"log": {"format": "json"}}).ready()
    assert served.stop() == 0

    events = [json.loads(line)["event"] for line in served.text().splitlines()]
    assert events[-1] == "stopped"
    assert "ready" in events


def test_only_guests_are_served(serve: Serve) -> None:
    """By user id, as the kernel tells it."""
    served = serve({"members": [{"guests": {"uids": [54321]}}]}).ready()

    with connected(served) as client:
        assert client.recv(1000).startswith(b"error|code=denied")
    with pytest.raises(TurbopumpError):
        Client(served.socket).ping()


def test_over_tcp_a_password_is_asked(serve: Serve) -> None:
    """On the unix socket the mode of the file is the lock."""
    served = serve({"members": [{"tcp": {"port": 0, "password": "secret"}}]}).ready()
    with Client(served.socket) as client:
        _, address = client.status()["addresses"]
    with Client(address, password="secret") as client:
        client.put("a", "1")

        assert client.get("a") == b"1"
    assert "secret" not in served.text()


def test_at_the_limit_of_connections_the_rest_is_told(serve: Serve) -> None:
    """A clear refusal, and room again as soon as one leaves."""
    served = serve({"limits": {"max_connections": 1}}).ready()
    with Client(served.socket):
        with connected(served) as client:
            assert client.recv(1000).startswith(b"error|code=busy")
        with pytest.raises(TurbopumpError):
            Client(served.socket).ping()


def test_the_descriptor_limit_is_raised_as_far_as_it_goes() -> None:
    """In a process of its own: limits cannot be put back."""
    program = (
        "import resource, sys\n"
        "from turbopump.serve import raise_descriptor_limit\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))\n"
        "for wanted in (50, 150, 999):\n"
        "    raise_descriptor_limit(wanted)\n"
        "    print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.split() == ["100", "150", "200"]
    assert "fewer clients than configured" in done.stderr


def test_a_limit_that_is_high_enough_stays() -> None:
    """Nothing is lowered."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    raise_descriptor_limit(1)

    assert resource.getrlimit(resource.RLIMIT_NOFILE) == before


def test_a_path_that_is_too_long(serve: Serve) -> None:
    """Linux would only say `invalid argument`."""
    served = serve(None, "--socket", tempfile.gettempdir() + "/" + "x" * 107)

    assert served.notified() == ""
    assert served.ended() == 2
    assert "bytes, Linux allows 107: shorten it" in served.text()
