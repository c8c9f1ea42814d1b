"""cli.py: the commands for clusters, as far as they need no other node."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, Self

import pytest
from click.testing import CliRunner, Result

from turbopump import cli

EXAMPLE = Path(__file__).parent.parent / "examples" / "single.json"


def run(*arguments: str) -> Result:
    """Runs a command line."""
    return CliRunner().invoke(cli.cli, arguments, prog_name="turbopump")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The directory of a cluster of three."""
    made = run("init", str(tmp_path / "cluster"))
    assert made.exit_code == 0, made.stderr
    return tmp_path / "cluster"


def test_init_and_check(directory: Path) -> None:
    """What one writes the other finds good, as a whole and for each member; a second time is refused."""
    file = str(directory / "cluster.json")
    assert run("check", file).stdout == f"{file}: good\n"
    assert run("check", file, "--node", "b").exit_code == 0
    again = run("init", str(directory))
    assert again.exit_code == 2
    assert "is not empty" in again.stderr


def test_init_with_everything(tmp_path: Path) -> None:
    """Hosts, ports, placement and copies come into the file; a program learns where it is."""
    where = str(tmp_path / "cluster")
    hosts = ["--host", "10.0.0.1", "--host", "10.0.0.2", "--nodes", "2"]
    options = ["--port", "7", "--placement", "partition", "--copies", "1", "--tcp-port", "0"]
    told = json.loads(run("init", where, *hosts, *options, "--json").stdout)

    assert told["members"] == [{"name": "a", "address": "10.0.0.1:7"}, {"name": "b", "address": "10.0.0.2:7"}]
    config = json.loads(Path(told["file"]).read_text())
    assert (config["placement"], config["copies"]) == ("partition", 1)
    assert "turbopump serve" in run("init", where + "2").stdout


def test_check_explains_what_is_wrong_with_a_cluster(directory: Path) -> None:
    """Names without an address, a secret that others may read, a key of nobody: all at once."""
    file = directory / "cluster.json"
    document = json.loads(file.read_text())
    for index, address in enumerate(("10.0.0.1", "b.invalid", "10.0.0.3")):
        document["members"][index]["address"] = address
        document["members"][index].pop("tcp")
    document["members"][2]["public_key"] = "A" * 86
    file.write_text(json.dumps(document))
    (directory / "cluster.secret").chmod(0o644)

    problems = json.loads(run("check", str(file), "--json").stdout)["problems"]
    words = ["b.invalid has no address here", "c.key is the key of no member", "chmod 600"]
    assert [next(word for word in words if word in problem) for problem in problems] == words

    document["members"][2]["public_key"] = document["members"][0]["public_key"]
    file.write_text(json.dumps(document))
    assert "it is that of a" in run("check", str(file)).stderr


def test_serve_tells_which_member_it_could_be(directory: Path) -> None:
    """Before anything is started."""
    file = str(directory / "cluster.json")
    for options in ((), ("--socket", "/tmp/x")):
        refused = run("serve", file, *options)
        assert refused.exit_code == 2
        assert "the keys of a, b, c are here: say which to be with --node" in refused.stderr
    assert "no member is called 'z'" in run("serve", file, "--node", "z").stderr


def test_the_ring_of_a_file(directory: Path, tmp_path: Path) -> None:
    """For people, for programs, and drawn; where a key is, too."""
    file = str(directory / "cluster.json")
    table = run("ring", file, "--key", "greeting", "--svg", str(tmp_path / "ring.svg"))
    assert table.exit_code == 0, table.stderr
    assert "clone: every member keeps every key" in table.stdout
    assert "the key is in slot" in table.stdout
    assert ET.parse(tmp_path / "ring.svg").getroot().tag.endswith("svg")  # noqa: S314 - written just now

    report = json.loads(run("ring", file, "--json").stdout)
    assert [member["slots"] for member in report["members"]] == [16384] * 3
    assert "key" not in report
    assert run("ring", str(EXAMPLE)).exit_code == 0
    refused = run("ring", file, "--svg", str(tmp_path / "none" / "ring.svg"))
    assert (refused.exit_code, "cannot be written" in refused.stderr) == (2, True)


class Peers:
    """A client of a node with peers, of which one has been compared when it is asked about a third time."""

    def __init__(self, *_args: object, **_options: object) -> None:
        self._asked = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def sync(self) -> str:
        """Starts it."""
        return "comparing with 1 of 2 peers"

    def status(self) -> dict[str, Any]:
        """Of three members."""
        self._asked += 1
        alive = {"name": "b", "state": "alive", "rounds": 4 + self._asked // 3, "keys_found": 20}
        return {"peers": [{"name": "a", "state": "self"}, alive, {"name": "c", "state": "down"}]}


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands talk to such a client."""
    monkeypatch.setattr(cli, "SYNC_LOOK_SECONDS", 0.0)
    monkeypatch.setattr("turbopump.client.blocking.Client", Peers)


@pytest.mark.usefixtures("peers")
def test_sync_waits_until_peers_were_compared() -> None:
    """Those that answer; then it shows them all."""
    told = run("sync")

    assert (told.exit_code, told.stdout.splitlines()[0]) == (0, "comparing with 1 of 2 peers")
    assert [line.split() for line in told.stdout.splitlines()[3:]] == [
        ["a", "self"],
        ["b", "alive", "20", "5"],
        ["c", "down"],
    ]


@pytest.mark.usefixtures("peers")
def test_sync_need_not_wait() -> None:
    """Then it shows how things were."""
    assert json.loads(run("sync", "--json", "--no-wait").stdout)[1]["rounds"] == 4


@pytest.mark.usefixtures("peers")
def test_sync_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """And says what is known."""
    monkeypatch.setattr(cli, "SYNC_SECONDS", -1.0)
    late = run("sync")

    assert late.exit_code == 4
    assert "some have not ended" in late.stderr


@pytest.mark.usefixtures("peers")
def test_a_status_shows_peers_as_a_table() -> None:
    """Under the node's own figures; programs get a list."""
    assert run("status").stdout.splitlines()[1].split() == ["peer", "state", "found", "rounds"]
    assert json.loads(run("status", "--json").stdout)["peers"][2]["name"] == "c"
