"""The command line: words in, words out. What a command does is in the part of the package it calls."""

# ruff: noqa: PLC0415 - commands import the heavy parts that they need, so `turbopump get` starts fast

import base64
import io
import json
import sys
import time
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import rich_click as click

from turbopump.errors import (
    ConfigError,
    ConnectionLostError,
    NotFoundError,
    TurbopumpError,
    UnavailableError,
    error_for,
)

if TYPE_CHECKING:
    from turbopump.client.blocking import Client
    from turbopump.config import Config

EXIT_CODES: dict[type[TurbopumpError], int] = {
    ConfigError: 2,
    NotFoundError: 3,
    ConnectionLostError: 4,
    UnavailableError: 4,
}
SOCKET_PATH = "/tmp/turbopump"  # noqa: S108 - where a node listens unless told otherwise
SYNC_SECONDS = 60.0  # a blank node of a million keys takes ten
SYNC_LOOK_SECONDS = 0.05
LONG_BYTES = 8 * 1024 * 1024  # above this, sending takes long enough to watch

click.rich_click.OPTIONS_PANEL_TITLE = "Options"
click.rich_click.COMMAND_GROUPS = {
    "turbopump": [
        {"name": "Run a node", "commands": ["serve", "check", "schema"]},
        {"name": "Run a cluster", "commands": ["init", "keygen", "ring", "sync"]},
        {"name": "Use a node", "commands": ["get", "put", "delete", "list", "status", "bench"]},
        {"name": "Between boxes", "commands": ["transfer"]},
        {"name": "This program", "commands": ["version", "completion"]},
    ]
}


class Commands(click.RichGroup):
    """Turns the package's errors into a line on stderr and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        try:
            return super().invoke(ctx)
        except TurbopumpError as error:
            for line in str(error).splitlines():
                click.echo(f"turbopump: {line}", err=True)
            ctx.exit(next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1))


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    epilog="Exit codes: 0 done, 1 refused or failed, 2 wrong usage or configuration, "
    "3 no value under the key, 4 no node answers.",
)
def cli() -> None:
    """A distributed key-value store: `turbopump serve` starts a node, the other commands use one."""


def with_client(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command a connected client as its first argument, and the options that say where to."""

    @click.option(
        "--socket",
        "node",
        metavar="PATH",
        envvar="TURBOPUMP_SOCKET",
        default=SOCKET_PATH,
        help="The node's socket, or tcp://host:port. Also $TURBOPUMP_SOCKET.",
    )
    @click.option(
        "--password", envvar="TURBOPUMP_PASSWORD", help="For nodes over TCP. Better $TURBOPUMP_PASSWORD."
    )
    @click.option(
        "--timeout", type=click.FloatRange(min=0.001), default=30.0, help="Seconds to wait for an answer."
    )
    @wraps(command)
    def connected(*args: Any, node: str, password: str | None, timeout: float, **options: Any) -> None:
        from turbopump.client.blocking import Client

        try:
            client = Client(node, password=password, timeout=timeout)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        with client:
            command(client, *args, **options)

    return connected


@cli.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--socket", metavar="PATH", help="Listen here instead of where the file says.")
@click.option("--node", metavar="NAME", help="Which member of the file to be, where its key does not tell.")
@click.pass_context
def serve(context: click.Context, file: Path | None, socket: str | None, node: str | None) -> None:
    """Run a node until SIGTERM.

    Without FILE: one node, everything in memory, on /tmp/turbopump. With the file of a cluster a node is the
    member whose private key it finds. SIGTERM or Ctrl-C answers what was accepted and ends with 0; a second
    one, or `drain_seconds`, ends at once with 1.
    """
    from turbopump.keys import own_name
    from turbopump.serve import run

    config = _load(file)
    if socket is not None:
        config = config.with_socket(socket, own_name(config, node))
    context.exit(run(config, node))


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--node", metavar="NAME", help="Check also that there is this member, and that its key is here."
)
@click.option("--json", "as_json", is_flag=True, help="Print an object: valid, problems.")
@click.pass_context
def check(context: click.Context, file: Path, node: str | None, *, as_json: bool) -> None:
    """Check a configuration file without starting anything.

    Every problem is a line: the field, its value, and what to do. Of a cluster, names are resolved (nothing
    is sent to them), and the keys that are on this box are looked at.
    """
    problems = _problems(file, node)
    if as_json:
        click.echo(json.dumps({"valid": not problems, "problems": problems}, indent=2))
    else:
        for problem in problems:
            click.echo(f"turbopump: {problem}", err=True)
        click.echo(f"{file}: {'wrong' if problems else 'good'}")
    context.exit(2 if problems else 0)


@cli.command()
def schema() -> None:
    """Print the JSON schema of the configuration file, for editors."""
    from turbopump.config import schema as json_schema

    click.echo(json.dumps(json_schema(), indent=2))


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--cluster", is_flag=True, help="Make the secret that all members share instead.")
@click.option("--json", "as_json", is_flag=True, help="Print an object: file, public_key (null: a secret).")
def keygen(file: Path, *, cluster: bool, as_json: bool) -> None:
    """Make a node's private keys in FILE, for its owner alone, and print the public key.

    The public key belongs into the configuration of every member; the file stays on its node.
    """
    from turbopump.keys import ClusterSecret, NodeKey

    key = ClusterSecret.generate() if cluster else NodeKey.generate()
    key.save(file)
    public = str(key.public_key) if isinstance(key, NodeKey) else None
    if as_json:
        click.echo(json.dumps({"file": str(file), "public_key": public}))
    elif public is not None:
        click.echo(public)


@cli.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--nodes", type=click.IntRange(1, 1024), default=3, help="How many nodes.")
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="HOST",
    help="Where a node is, an IP address or a name; give it once for each node, or once for all of them. "
    "Without it all are on this box.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=1593,
    help="UDP port of the (first) node; further ones on a box follow.",
)
@click.option(
    "--tcp-port",
    type=click.IntRange(0, 65535),
    default=1592,
    help="TCP port for Redis clients of the (first) node, if it is on loopback; 0: none.",
)
@click.option(
    "--placement",
    type=click.Choice(["clone", "partition"]),
    default="clone",
    help="Every key on every node, or on some.",
)
@click.option(
    "--copies", type=click.IntRange(1, 16), help="Nodes that keep each key of a partition; 3 unless given."
)
@click.option("--json", "as_json", is_flag=True, help="Print an object: file, members.")
def init(directory: Path, *, nodes: int, hosts: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Make the directory of a new cluster: its file, a key for each node, and the secret that all share.

    Prints what to do next. Nothing that is there is overwritten.
    """
    from turbopump.directory import FILE, Plan, make, next_steps

    tcp_port = options.pop("tcp_port") or None
    config = make(directory, Plan(nodes, hosts or ("127.0.0.1",), tcp_port=tcp_port, **options))
    if as_json:
        members = [{"name": member.name, "address": member.address} for member in config.members]
        click.echo(json.dumps({"file": str(directory / FILE), "members": members}, indent=2))
    else:
        click.echo(next_steps(directory, config), nl=False)


@cli.command()
@click.argument("config", type=click.Path(path_type=Path), default="cluster.json")
@click.option(
    "--svg", type=click.Path(path_type=Path), metavar="FILE", help="Draw the circle of slots there."
)
@click.option("--key", metavar="KEY", help="Tell who keeps this key, and show the ring of its keyspace.")
@click.option("--json", "as_json", is_flag=True, help="Print an object with all figures.")
def ring(config: Path, svg: Path | None, key: str | None, *, as_json: bool) -> None:
    """Show who keeps which part of the keys, as the file CONFIG has it.

    No node is asked: all compute the same from the same file.
    """
    from turbopump.membership import Topology, drawn_ring, ring_report, ring_table

    report = ring_report(topology := Topology(_load(config)), key)
    if svg is not None:
        try:
            svg.write_text(drawn_ring(topology, report, key), encoding="utf-8")
        except OSError as error:
            raise ConfigError([f"{svg} cannot be written: {error.strerror}"]) from error
    click.echo(json.dumps(report, indent=2) if as_json else ring_table(report))


@cli.command()
@click.option("--wait/--no-wait", default=True, help="Wait until each peer that answers has been compared.")
@click.option("--json", "as_json", is_flag=True, help="Print the peers as a list of objects.")
@with_client
def sync(client: "Client", *, wait: bool, as_json: bool) -> None:
    """Compare a node with its peers now, and show what was found.

    Nodes do it by themselves, every `sync_seconds`; this is for who does not want to wait.
    """
    from turbopump.membership import peers_table, rounds, were_compared

    before = rounds(client.status())
    said = client.sync()
    deadline = time.monotonic() + SYNC_SECONDS
    found = client.status()
    while wait and not were_compared(before, found):
        if time.monotonic() > deadline:
            raise error_for(
                "timeout", f"{said}, and some have not ended after {SYNC_SECONDS:g} s: see status"
            )
        time.sleep(SYNC_LOOK_SECONDS)
        found = client.status()
    peers = found.get("peers", [])
    click.echo(json.dumps(peers, indent=2) if as_json else f"{said}\n\n{peers_table(peers)}")


@cli.command()
@click.argument("key")
@click.option("-o", "--output", type=click.File("wb"), default="-", help="Write the value here.")
@click.option("--json", "as_json", is_flag=True, help="Print an object: key, value, version, expires_ms.")
@with_client
def get(client: "Client", key: str, output: BinaryIO, *, as_json: bool) -> None:
    """Print the value under a key, byte for byte."""
    entry = client.read(key)
    if entry is None:
        raise error_for("not_found", f"there is no value under {key}")
    if as_json:
        about = {"version": entry.version, "expires_ms": entry.expires_ms}
        output.write(
            json.dumps(_named("key", key.encode()) | _named("value", entry.value) | about).encode() + b"\n"
        )
    else:
        output.write(entry.value)


@cli.command()
@click.argument("key")
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--value", help="The value itself, instead of a file.")
@click.option(
    "--ttl", type=click.FloatRange(min=0.001), metavar="SECONDS", help="Lifetime; default the keyspace's."
)
@click.option("--if-absent", is_flag=True, help="Only if the key has no value.")
@click.option("--if-present", is_flag=True, help="Only if the key has a value.")
@click.option("--if-version", metavar="VERSION", help="Only if the key's value is of this version.")
@click.option("--json", "as_json", is_flag=True, help="Print an object: key, version, size.")
@with_client
def put(
    client: "Client", key: str, file: BinaryIO, *, value: str | None, as_json: bool, **conditions: Any
) -> None:
    """Store FILE, or what comes on stdin, under a key, and print its version."""
    source, size = _measured(file if value is None else io.BytesIO(value.encode()))
    with _watched(key, size) as on_sent:
        version = client.put_file(key, source, size, on_sent=on_sent, **conditions)
    if as_json:
        click.echo(json.dumps(_named("key", key.encode()) | {"version": version, "size": size}))
    else:
        click.echo(version)


@cli.command()
@click.argument("keys", nargs=-1, required=True)
@click.option(
    "--json", "as_json", is_flag=True, help="Print an object for each key: key, version (null: none)."
)
@with_client
def delete(client: "Client", keys: tuple[str, ...], *, as_json: bool) -> None:
    """Delete keys."""
    missing = []
    for key in keys:
        version = client.delete(key)
        if version is None:
            missing.append(key)
        if as_json:
            click.echo(json.dumps(_named("key", key.encode()) | {"version": version}))
    if missing:
        raise error_for("not_found", f"there is no value under {', '.join(missing)}")


@cli.command("list")
@click.argument("prefix", default="")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many.")
@click.option("--json", "as_json", is_flag=True, help="Print an object a line: key.")
@with_client
def list_(client: "Client", prefix: str, limit: int | None, *, as_json: bool) -> None:
    """List the keys that begin with PREFIX, one a line, in no order.

    What is not printable text is percent-encoded, and so is the percent sign.
    """
    for index, key in enumerate(client.list(prefix)):
        if index == limit:
            return
        click.echo(json.dumps(_named("key", key)) if as_json else printable(key))


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print all of it as an object.")
@with_client
def status(client: "Client", *, as_json: bool) -> None:
    """Tell how a node does, and its peers."""
    found = client.status()
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    peers = found.pop("peers", None)
    for name, value in found.items():
        shown = json.dumps(value) if isinstance(value, dict | list) else value
        click.echo(f"{name:<24} {shown}")
    if peers:
        from turbopump.membership import peers_table

        click.echo(f"\n{peers_table(peers)}")


@cli.command()
@click.option("--socket", "address", default=SOCKET_PATH, metavar="PATH", help="Or tcp://host:port.")
@click.option(
    "--protocol", type=click.Choice(["resp", "pipe", "memcached"]), default="resp", help="What to speak."
)
@click.option("--connections", type=click.IntRange(1, 10_000), default=50, help="Clients at once.")
@click.option("--depth", type=click.IntRange(1, 10_000), default=1, help="Requests in flight on each.")
@click.option("--keys", type=click.IntRange(min=1), default=100_000, help="Different keys.")
@click.option("--key-size", type=click.IntRange(8, 4096), default=16, help="Bytes of a key.")
@click.option("--value-size", type=click.IntRange(0, 1 << 30), default=100, help="Bytes of a value.")
@click.option("--reads", type=click.IntRange(0, 100), default=90, help="Percent that read; the others write.")
@click.option("--seconds", type=click.FloatRange(min=0.1), default=5.0, help="How long to measure.")
@click.option(
    "--rate", type=click.IntRange(min=0), default=0, help="Requests a second; 0: as many as it answers."
)
@click.option("--prefill/--no-prefill", default=True, help="Write every key once before the run.")
@click.option("--one-shot", is_flag=True, help="A connection for each request, as nc has it.")
@click.option(
    "--pid", "pids", type=int, multiple=True, help="A process of the server, to count its CPU time."
)
@click.option("--json", "as_json", is_flag=True, help="Print options and figures as an object.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw the latencies as SVG.")
def bench(*, as_json: bool, plot: Path | None, **options: Any) -> None:
    """Load a server and measure it: turbopump, Redis or memcached.

    With a rate, latency counts from when a request was due, so a server that stalls cannot hide it.
    """
    from turbopump.bench import report, run
    from turbopump.plot import Curve, percentile_plot

    figures = run(options)
    if as_json:
        click.echo(json.dumps(figures, indent=2))
    else:
        click.echo(report(figures))
    if plot is not None:
        curve = Curve(f"{options['protocol']}, {options['connections']} connections", figures["percentiles"])
        plot.write_text(percentile_plot([curve], "Latency of a request"), encoding="utf-8")


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print an object: version, profile, git.")
def version(*, as_json: bool) -> None:
    """Tell the version and how it was built."""
    from turbopump import build_info

    build = build_info()
    if as_json:
        click.echo(json.dumps(build))
    else:
        click.echo(
            f"turbopump {build['version']} ({', '.join(filter(None, [build['profile'], build['git']]))})"
        )


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes this command in a shell.

    For example: eval "$(turbopump completion bash)"
    """
    from click.shell_completion import get_completion_class

    complete = get_completion_class(shell)
    if complete is None:
        raise click.UsageError(f"{shell} cannot be completed")
    click.echo(complete(cli, {}, "turbopump", "_TURBOPUMP_COMPLETE").source())


def main() -> None:
    """Runs the command line, and ends the process with its exit code."""
    cli(prog_name="turbopump")


def printable(key: bytes) -> str:
    """A key for people: text as it is, anything else percent-encoded, so that no two keys look the same."""
    text = key.decode(errors="surrogateescape")
    return "".join(
        char
        if char.isprintable() and char != "%"
        else "".join(f"%{byte:02X}" for byte in char.encode(errors="surrogateescape"))
        for char in text
    )


def _named(name: str, data: bytes) -> dict[str, str]:
    """Bytes for JSON: as text where they are, else as base64 under another name."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def _load(file: Path | None) -> "Config":
    from turbopump.config import Config, load

    return Config() if file is None else load(file)


def _problems(file: Path, node: str | None) -> list[str]:
    """What is wrong with a file, with its names, and with the secrets on this box; all of it, if possible."""
    from turbopump.config import resolved
    from turbopump.keys import mistakes

    try:
        config = _load(file)
        if node is not None or config.cluster is None:
            config.member(node)
    except ConfigError as error:
        return list(error.problems)
    problems = mistakes(config, node)
    try:
        resolved(config)
    except ConfigError as error:
        problems = [*error.problems, *problems]
    return problems


@cli.group()
def transfer() -> None:
    """Send files to another box, encrypted, over one UDP port.

    `turbopump transfer serve` on one box prints what to type on the other.
    """


@transfer.command("serve")
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    default=".",
    help="The directory for the files; none is replaced.",
)
@click.option(
    "--listen", metavar="HOST:PORT", default="0.0.0.0:1593", help="UDP address; port 0: any free one."
)
def transfer_serve(into: Path, listen: str) -> None:
    """Receive files until Ctrl-C.

    Whoever has the ticket that is printed may send; it ends with this command.
    """
    from turbopump.transfer import serve, summary

    def ready(peer: str) -> None:
        click.echo(f"On the other box:\n\n  turbopump transfer send FILE {peer}\n")

    def watch(figures: Mapping[str, Any]) -> None:
        if figures["done"]:
            click.echo(summary(figures))

    try:
        serve(into, listen, ready, watch)
    except KeyboardInterrupt:
        click.echo()


@transfer.command("send")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("peer")
@click.option("--json", "as_json", is_flag=True, help="Print all figures as an object.")
def transfer_send(file: Path, peer: str, *, as_json: bool) -> None:
    """Send FILE to PEER, which `turbopump transfer serve` printed: TICKET@HOST:PORT."""
    from turbopump.transfer import send, summary

    with _watched(file.name, file.stat().st_size) as on_sent:
        figures = send(file, peer, lambda so_far: on_sent(so_far["bytes"]) if on_sent else None)
    click.echo(json.dumps(figures) if as_json else summary(figures))


def _measured(file: BinaryIO) -> tuple[BinaryIO, int]:
    """A file and its size, which must be known before it is sent; what comes through a pipe is read first."""
    if not file.seekable():
        file = io.BytesIO(file.read())
    start = file.tell()
    size = file.seek(0, io.SEEK_END) - start
    file.seek(start)
    return file, size


def _watched(what: str, total: int) -> Any:
    """A context in which a progress bar shows how much was sent; none for what is quick, or not watched."""
    if total < LONG_BYTES or not sys.stderr.isatty():
        from contextlib import nullcontext

        return nullcontext()
    from turbopump.progress import sending

    return sending(what, total)
