"""cli.py: what a person types and what a script reads, against a real node."""

import io
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import rich_click as click
from click.testing import CliRunner, Result

from conftest import Served
from turbopump import Client, cli

EXAMPLE = Path(__file__).parent.parent / "examples" / "single.json"


@pytest.fixture
def key(prefix: str) -> str:
    """A key of the test's own."""
    return f"cli/{prefix}a"


def run(*arguments: str, node: Served | None = None, stdin: bytes = b"") -> Result:
    """Runs a command line."""
    environment = {"TURBOPUMP_SOCKET": node.socket if node else None}
    return CliRunner().invoke(cli.cli, arguments, input=stdin, env=environment, prog_name="turbopump")


def test_a_value_goes_in_and_comes_out(node: Served, key: str, tmp_path: Path) -> None:
    """From stdin, a file or the command line; byte for byte."""
    data = bytes(range(256)) * 10
    (tmp_path / "in").write_bytes(data)
    for put in (
        run("put", key, node=node, stdin=data),
        run("put", key, str(tmp_path / "in"), node=node),
    ):
        assert (put.exit_code, len(put.stdout)) == (0, 34)
        assert run("get", key, node=node).stdout_bytes == data

    run("get", key, "--output", str(tmp_path / "out"), node=node)
    assert (tmp_path / "out").read_bytes() == data
    run("put", key, "--value", "text", node=node)
    assert run("get", key, node=node).stdout == "text"


def test_what_programs_read(node: Served, key: str) -> None:
    """Objects; bytes that are no text as base64."""
    put = json.loads(run("put", key, "--json", "--ttl", "60", node=node, stdin=b"\xff").stdout)
    got = json.loads(run("get", key, "--json", node=node).stdout)

    assert put == {"key": key, "version": got["version"], "size": 1}
    assert got["value_base64"] == "/w=="
    assert got["expires_ms"] > 0
    run("put", key, "--value", "ü", node=node)
    assert json.loads(run("get", key, "--json", node=node).stdout)["value"] == "ü"
    deleted = [json.loads(line) for line in run("delete", key, key, "--json", node=node).stdout.splitlines()]
    assert len(deleted[0]["version"]) == 33
    assert deleted[1] == {"key": key, "version": None}


def test_what_is_not_there(node: Served, key: str) -> None:
    """Has an exit code of its own, and nothing on stdout."""
    for command in ("get", "delete"):
        result = run(command, key, node=node)
        assert result.exit_code == 3
        assert result.stdout == ""
        assert result.stderr == f"turbopump: there is no value under {key}\n"


def test_conditions(node: Served, key: str) -> None:
    """A script can take a lock, change what it read, and see that it failed."""
    first = run("put", key, "--if-absent", "--value", "1", node=node).stdout.strip()
    refused = run("put", key, "--if-absent", "--value", "2", node=node)
    assert refused.exit_code == 1
    assert "has a value already" in refused.stderr

    assert run("put", key, "--if-version", first, "--value", "2", node=node).exit_code == 0
    assert run("put", key, "--if-version", first, "--value", "3", node=node).exit_code == 1
    assert run("put", key + "x", "--if-present", "--value", "3", node=node).exit_code == 1


def test_listing(node: Served, key: str) -> None:
    """A key a line; no two look the same, none breaks the line."""
    names = [b"plain", "ü".encode(), b"100%", b"a\nb", b"\xff"]
    with Client(node.socket) as client:
        for name in names:
            client.put(key.encode() + b"/" + name, "")

    shown = run("list", key + "/", node=node).stdout.splitlines()
    assert sorted(line.removeprefix(key + "/") for line in shown) == ["%FF", "100%25", "a%0Ab", "plain", "ü"]
    objects = [json.loads(line) for line in run("list", key + "/", "--json", node=node).stdout.splitlines()]
    assert {"key": f"{key}/a\nb"} in objects
    assert [set(found) for found in objects].count({"key_base64"}) == 1
    assert len(run("list", key + "/", "--limit", "2", node=node).stdout.splitlines()) == 2


def test_status(node: Served) -> None:
    """For people and for programs."""
    assert "running" in run("status", node=node).stdout
    assert json.loads(run("status", "--json", node=node).stdout)["pid"] == node.process.pid


def test_nobody_answers(folder: Path) -> None:
    """Has an exit code of its own, too."""
    result = run("get", "a", "--socket", str(folder / "nobody"))

    assert result.exit_code == 4
    assert "start one or give its address" in result.stderr


def test_a_wrong_address_is_wrong_usage() -> None:
    """Before anything is sent."""
    result = run("get", "a", "--socket", "tcp://nowhere")

    assert result.exit_code == 2
    assert "write tcp://host:port" in result.stderr


def test_a_request_that_is_refused(node: Served) -> None:
    """Is a line on stderr, never a traceback."""
    result = run("get", "k" * 5000, node=node)

    assert result.exit_code == 1
    assert result.stderr.startswith("turbopump: a key has 1 to 4096 bytes")


def test_check_a_good_file() -> None:
    """Says so, for people and programs."""
    assert run("check", str(EXAMPLE)).stdout == f"{EXAMPLE}: good\n"
    assert json.loads(run("check", str(EXAMPLE), "--json").stdout) == {"valid": True, "problems": []}


def test_check_a_wrong_file(tmp_path: Path) -> None:
    """Every problem is a line."""
    file = tmp_path / "cluster.json"
    file.write_text('{"limits": {"max_key": 0}, "colour": 1}', encoding="utf-8")

    result = run("check", str(file))
    assert result.exit_code == 2
    assert result.stdout == f"{file}: wrong\n"
    assert len(result.stderr.splitlines()) == 2
    assert len(json.loads(run("check", str(file), "--json").stdout)["problems"]) == 2
    assert run("check", str(tmp_path / "nothing.json")).exit_code == 2


def test_check_for_a_member() -> None:
    """The file may be good and the name wrong."""
    assert run("check", str(EXAMPLE), "--node", "single").exit_code == 0
    result = run("check", str(EXAMPLE), "--node", "singel")

    assert result.exit_code == 2
    assert "did you mean single?" in result.stderr


def test_schema_is_json() -> None:
    """As it goes into an editor."""
    assert json.loads(run("schema").stdout)["title"] == "Config"


def test_version() -> None:
    """With what matters for figures."""
    about = json.loads(run("version", "--json").stdout)

    assert about["profile"] in {"release", "debug"}
    assert run("version").stdout.startswith(f"turbopump {about['version']} ({about['profile']}")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    """A script that the shell takes in."""
    assert "_TURBOPUMP_COMPLETE" in run("completion", shell).stdout


def test_completion_completes() -> None:
    """As the script asks the program."""
    result = CliRunner().invoke(
        cli.cli,
        [],
        env={"_TURBOPUMP_COMPLETE": "bash_complete", "COMP_WORDS": "turbopump s", "COMP_CWORD": "1"},
        prog_name="turbopump",
        complete_var="_TURBOPUMP_COMPLETE",
    )

    found = {line.split(",")[1] for line in result.stdout.splitlines()}
    assert found == {"serve", "schema", "status", "sync"}


def commands() -> list[tuple[str, click.Command]]:
    """All commands by name."""
    return sorted(cli.cli.commands.items())


@pytest.mark.parametrize(("name", "command"), commands())
def test_every_word_is_explained(name: str, command: click.Command) -> None:
    """Each command in a sentence, each option in a phrase."""
    result = run(name, "--help")

    assert result.exit_code == 0
    assert command.help
    assert command.get_short_help_str(200).endswith(".")
    for parameter in command.params:
        assert not isinstance(parameter, click.Option) or (parameter.help or "").endswith((".", "--help")), (
            parameter
        )


def test_every_command_has_its_place_in_the_help() -> None:
    """None is left over in a group without a name."""
    placed = [name for group in click.rich_click.COMMAND_GROUPS["turbopump"] for name in group["commands"]]

    assert sorted(placed) == [name for name, _ in commands()]
    assert "Exit codes: 0 done" in run("--help").stdout


def test_as_a_module(node: Served, key: str) -> None:
    """`python -m turbopump`, in a process of its own, with bytes through real pipes."""
    command = [sys.executable, "-m", "turbopump"]
    put = [*command, "put", key, "--socket", node.socket]
    subprocess.run(put, input=b"a\0b\n", check=True, capture_output=True, timeout=60)
    got = subprocess.run(
        [*command, "get", key, "--socket", node.socket], check=True, capture_output=True, timeout=60
    )

    assert got.stdout == b"a\0b\n"


def test_a_client_starts_without_the_heavy_parts() -> None:
    """A shell script may call it a thousand times."""
    program = "import sys, turbopump.cli, turbopump.client.blocking; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )

    assert not {"asyncio", "pydantic", "structlog", "rich.progress"} & set(done.stdout.split())


def test_a_long_upload_is_watched(node: Served, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a bar on stderr, if there is somebody to see it."""
    told: list[int] = []

    class Bar:
        def __enter__(self) -> Any:
            return told.append

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr("turbopump.progress.sending", lambda _what, _total: Bar())
    monkeypatch.setattr(cli, "LONG_BYTES", 10)
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", terminal)
        with cli._watched(key, 100) as on_sent, Client(node.socket) as client:
            client.put_file(key, io.BytesIO(b"x" * 100), 100, on_sent=on_sent)
    with cli._watched(key, 5) as quick, cli._watched(key, 100) as unseen:
        assert quick is unseen is None

    assert told == [100]


def test_bench(node: Served, tmp_path: Path) -> None:
    """A short run: the table, the object and the picture."""
    plot = tmp_path / "plot.svg"
    options = ["--socket", node.socket, "--seconds", "0.2", "--keys", "100", "--connections", "2"]
    table = run("bench", *options, "--plot", str(plot))
    assert table.exit_code == 0, table.stderr
    assert "requests/s" in table.stdout
    assert ET.parse(plot).getroot().tag.endswith("svg")  # noqa: S314 - written just now

    figures = json.loads(run("bench", *options, "--json", "--protocol", "pipe").stdout)
    assert figures["requests"] > 0
    assert figures["errors"] == 0
    assert figures["options"]["protocol"] == "pipe"


def test_bench_without_a_server(folder: Path) -> None:
    """Nothing was measured, and that is said."""
    result = run("bench", "--socket", str(folder / "nobody"), "--seconds", "0.1")

    assert result.exit_code == 4
