"""Three nodes on this machine: one is told, all know; one is killed, comes back empty, and is healed.

Run: python examples/demo.py; `make demo` does. With --once it ends when it has shown everything.
"""

import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from turbopump import Client
from turbopump.errors import TurbopumpError

KEYS = 20_000
PATIENCE_SECONDS = 60.0


def say(text: str) -> None:
    """Tells who watches, at once."""
    print(text, flush=True)


def start(directory: Path, name: str) -> subprocess.Popen[bytes]:
    """Starts a node; what it logs goes to a file beside its configuration."""
    command = [sys.executable, "-m", "turbopump", "serve", str(directory / "cluster.json"), "--node", name]
    with (directory / f"{name}.log").open("ab") as log:
        return subprocess.Popen(command, stderr=log)


def free_port() -> int:
    """A UDP port that was free a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def until(holds: Callable[[], bool], nodes: dict[str, subprocess.Popen[bytes]]) -> float:
    """Asks until it is so; how many seconds that took."""
    begun = time.monotonic()
    while time.monotonic() < begun + PATIENCE_SECONDS:
        ended = [name for name, node in nodes.items() if node.poll() is not None]
        if ended:
            raise SystemExit(f"node {ended[0]} has ended: is another cluster running on these ports?")
        try:
            if holds():
                return time.monotonic() - begun
        except (TurbopumpError, OSError):
            pass  # it is not there yet
        time.sleep(0.01)
    raise SystemExit("it did not happen within a minute")


def peers(path: str) -> list[dict[str, Any]]:
    """The other nodes, as a node sees them."""
    with Client(path) as client:
        return [peer for peer in client.status()["peers"] if peer["state"] == "alive"]


def keys(path: str) -> int:
    """How many keys a node has."""
    with Client(path) as client:
        return int(client.status()["keys"])


def show(directory: Path, nodes: dict[str, subprocess.Popen[bytes]], sockets: dict[str, str]) -> None:
    """The whole story."""
    seconds = until(lambda: all(len(peers(path)) == len(nodes) - 1 for path in sockets.values()), nodes)
    say(f"Three nodes, which talk encrypted, know each other after {seconds:.1f} s.")
    with Client(sockets["a"]) as client:
        client.put("greeting", "hello from a")
        begun = time.monotonic()
        for first in range(0, KEYS, 500):
            with client.pipeline() as pipe:
                for number in range(first, first + 500):
                    pipe.put(f"key{number}", f"value {number}")
        seconds = time.monotonic() - begun
    say(f"Told a {KEYS:,} keys in {seconds:.1f} s; each was on two nodes before it was answered.")
    with Client(sockets["b"]) as b, Client(sockets["c"]) as c:
        until(lambda: b.get("greeting") == c.get("greeting") == b"hello from a", nodes)
    say("Read from b and from c what a was told.")
    nodes["b"].send_signal(signal.SIGKILL)
    nodes["b"].wait()
    say("Killed b (kill -9). It kept everything in memory, so it has lost everything.")
    with Client(sockets["c"]) as client:
        client.put("greeting", "hello from c")
        client.delete("key0")
    say("Wrote and deleted on c meanwhile.")
    nodes["b"] = start(directory, "b")
    seconds = until(lambda: keys(sockets["b"]) == KEYS == keys(sockets["a"]), nodes)
    with Client(sockets["b"]) as client:
        said, gone = client.get("greeting"), client.get("key0") is None
    found = [peer for peer in peers(sockets["b"]) if peer["name"] in {"a", "c"}]
    digests = sum(peer["digest_bytes"] for peer in found)
    say(f"Started b again: {seconds:.1f} s later it has all {KEYS:,} keys; digests took {digests:,} bytes.")
    say(f"It says {said!r}, and that key0 is {'gone' if gone else 'there, which is a defect'}.")


def main() -> None:
    """Runs the demonstration, and the cluster until Ctrl-C."""
    with tempfile.TemporaryDirectory(prefix="turbopump-") as path:
        directory = Path(path) / "demo"
        made = [sys.executable, "-m", "turbopump", "init", str(directory), "--nodes", "3"]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
        file = directory / "cluster.json"
        document = json.loads(file.read_text(encoding="utf-8"))
        for member in document["members"]:
            member["socket"] = str(directory / member["name"])
            member.pop("tcp", None)
            member["address"] = f"127.0.0.1:{free_port()}"
        file.write_text(json.dumps(document), encoding="utf-8")
        sockets = {member["name"]: member["socket"] for member in document["members"]}
        nodes = {name: start(directory, name) for name in sockets}
        try:
            show(directory, nodes, sockets)
            if "--once" not in sys.argv:
                say(f"The cluster runs until Ctrl-C. Try: echo 'read|name=greeting|' | nc -U {sockets['a']}")
                signal.pause()
        except KeyboardInterrupt:
            say("")
        finally:
            for node in nodes.values():
                node.terminate()
            for node in nodes.values():
                node.wait()


if __name__ == "__main__":
    main()
