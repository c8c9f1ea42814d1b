"""What stands in examples/ runs as it stands there."""

import json
import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from conftest import Serve, Served
from test_cluster import eventually, free_ports, knows_all
from turbopump.cli import cli

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.name)
def test_the_example_runs(node: Served, file: Path) -> None:
    """Beside a node, as a reader would try it."""
    environment = os.environ | {"TURBOPUMP_SOCKET": node.socket}
    done = subprocess.run(
        [sys.executable, str(file), "--once"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "hello" in done.stdout


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.json")), ids=lambda file: file.name)
def test_the_configuration_is_good(file: Path) -> None:
    """As far as that can be said without the keys of its nodes, which nobody has."""
    told = CliRunner().invoke(cli, ["check", str(file)])

    assert (told.exit_code, told.stdout, told.stderr) == (0, f"{file}: good\n", "")


def test_the_cluster_runs_with_keys_of_its_own(folder: Path, serve: Serve) -> None:
    """Made as a reader would; on this box, for there are no others."""
    document = json.loads((EXAMPLES / "cluster3.json").read_text(encoding="utf-8"))
    ports = free_ports(socket.SOCK_DGRAM)
    (folder / "keys").mkdir()
    for member in document["members"]:
        key = folder / document["cluster"]["key"].format(name=member["name"])
        made = CliRunner().invoke(cli, ["keygen", str(key), "--json"])
        member["public_key"] = json.loads(made.stdout)["public_key"]
        member["address"] = f"127.0.0.1:{next(ports)}"
        member["socket"] = str(folder / member["name"])
    secret = folder / document["cluster"]["secret"]
    assert CliRunner().invoke(cli, ["keygen", "--cluster", str(secret)]).exit_code == 0
    file = folder / "cluster3.json"
    file.write_text(json.dumps(document), encoding="utf-8")

    names = [member["name"] for member in document["members"]]
    for name in names:
        checked = CliRunner().invoke(cli, ["check", str(file), "--node", name])
        assert checked.exit_code == 0, checked.stderr
    for node in [serve(None, str(file), "--node", name) for name in names]:
        eventually(partial(knows_all, node))
