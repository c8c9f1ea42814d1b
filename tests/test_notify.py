"""notify.py: what systemd hears, and silence where nobody listens."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from turbopump import notify


@pytest.fixture(params=["path", "abstract"])
def supervisor(
    request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """A socket that NOTIFY_SOCKET names, of both kinds."""
    name = str(folder / "n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.settimeout(10)
        listener.bind(name if request.param == "path" else "\0" + name)
        monkeypatch.setenv("NOTIFY_SOCKET", name if request.param == "path" else "@" + name)
        yield listener


def test_ready_is_told(supervisor: socket.socket) -> None:
    """With a line for `systemctl status`."""
    assert notify.ready("serving")

    assert supervisor.recv(4096) == b"READY=1\nSTATUS=serving"


def test_stopping_is_told(supervisor: socket.socket) -> None:
    """So that systemd waits for the drain."""
    assert notify.stopping("draining")

    assert supervisor.recv(4096) == b"STOPPING=1\nSTATUS=draining"


def test_a_value_cannot_begin_a_field(supervisor: socket.socket) -> None:
    """A newline in a path would."""
    notify.send(STATUS="a\nMAINPID=1")

    assert supervisor.recv(4096) == b"STATUS=a MAINPID=1"


def test_nobody_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of systemd nothing happens."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)

    assert not notify.ready("serving")


@pytest.mark.parametrize("name", ["", "relative", "vsock:2:1", "/nothing/there", "/" + "x" * 200])
def test_an_address_that_leads_nowhere_does_no_harm(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A node serves whether or not its supervisor listens."""
    monkeypatch.setenv("NOTIFY_SOCKET", name)

    assert not notify.ready("serving")


def test_a_supervisor_that_does_not_read_stops_nobody(supervisor: socket.socket) -> None:
    """Its queue fills; the node goes on."""
    told = [notify.ready("x" * 1000) for _ in range(2000)]

    assert told[0]
    assert not told[-1]
    assert supervisor.recv(4096)
