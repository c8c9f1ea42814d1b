"""transfer.py: a file goes from one box to another with two commands, and a ticket is all that is needed."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from turbopump.cli import cli
from turbopump.errors import ConfigError
from turbopump.transfer import CONGESTION, Ticket, peer

TICKET = str(Ticket(bytes(32), bytes(range(32))))


@pytest.fixture
def into(tmp_path: Path) -> Path:
    """Where files arrive."""
    path = tmp_path / "into"
    path.mkdir()
    return path


@pytest.fixture
def served(into: Path) -> Iterator[str]:
    """The peer to send to, as `transfer serve` prints it."""
    command = [sys.executable, "-m", "turbopump", "transfer", "serve"]
    command += ["--into", str(into), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        found = re.fullmatch(r" {2}turbopump transfer send FILE (\S+@127\.0\.0\.1:\d+)\n", lines[2])
        assert found, lines
        yield found[1]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


def send(file: Path, to: str, *options: str) -> Result:
    """Runs the other command."""
    return CliRunner().invoke(cli, ["transfer", "send", str(file), to, *options])


def test_a_file_arrives(served: str, into: Path, tmp_path: Path) -> None:
    """Byte for byte, with figures for people and for programs."""
    file = tmp_path / "data"
    file.write_bytes(bytes(range(256)) * 20_000)
    result = send(file, served)
    said = r"data: 5,120,000 bytes in \d+\.\d\d s, [\d,.]+ Mbit/s, round trip .*\n"
    assert re.fullmatch(said, result.output), result.output
    assert (into / "data").read_bytes() == file.read_bytes()

    again = send(file, served)
    assert again.exit_code == 1
    assert "the other side did not keep it: " in again.output
    assert "there is a data already" in again.output

    file.rename(tmp_path / "other")
    figures = json.loads(send(tmp_path / "other", served, "--json").output)
    assert (figures["name"], figures["bytes"], figures["done"]) == ("other", 5_120_000, True)
    assert (figures["state"], figures["congestion"], figures["handshakes"]) == ("connected", "bbr", 1)
    assert figures["bytes_sent"] > figures["bytes"] > figures["bytes_received"] > 0
    assert 0 < figures["rtt_min_ms"] <= figures["rtt_ms"]
    assert sorted(path.name for path in into.iterdir()) == ["data", "other"]


@pytest.mark.parametrize("congestion", CONGESTION)
def test_who_sets_the_rate_can_be_chosen(served: str, into: Path, tmp_path: Path, congestion: str) -> None:
    """Each of them brings a file over, and says that it did."""
    file = tmp_path / "data"
    file.write_bytes(bytes(3_000_000))
    figures = json.loads(send(file, served, "--congestion", congestion, "--json").output)
    assert (figures["congestion"], figures["done"]) == (congestion, True)
    assert (into / "data").stat().st_size == 3_000_000

    wrong = send(file, served, "--congestion", "reno")
    assert wrong.exit_code == 2
    assert "'reno' is not one of" in wrong.output
    options = CliRunner().invoke(cli, ["transfer", "serve", "--help"]).output
    assert all(name in options for name in CONGESTION)


def test_a_ticket_is_text_and_keeps_its_secret() -> None:
    """The keys of the sender follow from it, the same each time."""
    ticket = Ticket.parse(TICKET)
    assert len(TICKET) == 86
    assert ticket == Ticket(bytes(32), bytes(range(32)))
    assert bytes(ticket.sender) == bytes(Ticket.parse(TICKET).sender) != ticket.shared
    assert repr(bytes(range(32))) not in repr(ticket)


def test_a_ticket_is_no_option() -> None:
    """One of 64 keys begins with what an option begins with: such a ticket could not be typed."""
    tickets = [Ticket.issue() for _ in range(1000)]
    assert not any(str(ticket).startswith("-") for _, ticket in tickets)
    assert all(bytes(key.public_key) == ticket.public_key for key, ticket in tickets)
    assert len({ticket.secret for _, ticket in tickets}) == 1000


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "write the peer as"),
        ("localhost:1", "write the peer as"),
        ("ABC@localhost:1", "the ticket is the 86 characters"),
        (TICKET + "@localhost", "'localhost' is no HOST:PORT"),
        (TICKET + "@localhost:many", "'localhost:many' is no HOST:PORT"),
        (TICKET + "@localhost:99999999999999999999", "is no HOST:PORT"),
    ],
)
def test_what_is_no_peer(text: str, problem: str) -> None:
    """Says what one is."""
    with pytest.raises(ConfigError, match=problem):
        peer(text)


def test_addresses_are_resolved() -> None:
    """Names, and both kinds of numbers."""
    assert peer(f"{TICKET}@127.0.0.1:7")[1] == "127.0.0.1:7"
    assert peer(f"{TICKET}@[::1]:7")[1] == "[::1]:7"
    assert peer(f"{TICKET}@localhost:7")[1] in {"127.0.0.1:7", "[::1]:7"}


def test_what_cannot_be_served(tmp_path: Path) -> None:
    """A directory that is not there; an address that is not ours."""
    for options in (("--into", str(tmp_path / "none")), ("--listen", "192.0.2.1:0"), ("--listen", "x")):
        result = CliRunner().invoke(cli, ["transfer", "serve", *options])
        assert result.exit_code == 2, result.output
