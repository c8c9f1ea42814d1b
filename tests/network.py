"""A network for one test: namespaces on a bridge, whose links are cut, one way or both, and mended.

Needs root and `ip`. A cut loses packets in silence, as a broken switch does: their sender's neighbour table
names a box that there is not, so nothing is refused and no route is missing. Unplugged is what it says.
"""

import itertools
import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from types import TracebackType
from typing import Self

NUMBERS = itertools.count()
NOBODY = "02:00:00:00:00:ff"
COMMAND_SECONDS = 20


class Network:
    """Boxes on one bridge, each a namespace with one address. Leaving it removes all of them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._number = {name: index + 1 for index, name in enumerate(names)}
        self._prefix = f"tp-{os.getpid()}-{next(NUMBERS)}"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Makes the network; what was made is removed if the rest cannot be."""
        with ExitStack() as stack:
            self._space(stack, "hub")
            ip("-n", self._at("hub"), "link", "add", "name", "hub", "type", "bridge")
            ip("-n", self._at("hub"), "link", "set", "dev", "hub", "up")
            for name in self._number:
                self._box(stack, name)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Removes it, whoever is still in it."""
        self._stack.close()

    def address(self, name: str) -> str:
        """Where the others find a box."""
        return f"10.77.0.{self._number[name]}"

    def within(self, name: str) -> Sequence[str]:
        """What a command begins with to run on a box, as the process that it would be without."""
        return ("ip", "netns", "exec", self._at(name))

    def cut(self, sender: str, receiver: str) -> None:
        """Loses what one sends to the other; the other way is as it was."""
        self._neighbour(sender, receiver, NOBODY)

    def split(self, some: Sequence[str], others: Sequence[str]) -> None:
        """Loses what those of either side send to the other."""
        for one, other in itertools.product(some, others):
            self.cut(one, other)
            self.cut(other, one)

    def mend(self) -> None:
        """Everything arrives again."""
        for one, other in itertools.permutations(self._number, 2):
            self._neighbour(one, other, self._hardware(other))
        for name in self._number:
            ip("-n", self._at("hub"), "link", "set", "dev", name, "up")

    def unplug(self, name: str) -> None:
        """Takes a box off the bridge: its link has no carrier."""
        ip("-n", self._at("hub"), "link", "set", "dev", name, "down")

    def _at(self, name: str) -> str:
        return f"{self._prefix}-{name}"

    def _hardware(self, name: str) -> str:
        return f"02:00:00:00:00:{self._number[name]:02x}"

    def _space(self, stack: ExitStack, name: str) -> None:
        ip("netns", "add", self._at(name))
        stack.callback(ip, "netns", "delete", self._at(name))

    def _box(self, stack: ExitStack, name: str) -> None:
        self._space(stack, name)
        peer = ("peer", "name", "eth0", "netns", self._at(name))
        ip("-n", self._at("hub"), "link", "add", "name", name, "type", "veth", *peer)
        ip("-n", self._at("hub"), "link", "set", "dev", name, "master", "hub", "up")
        ip("-n", self._at(name), "address", "add", f"{self.address(name)}/24", "dev", "eth0")
        ip("-n", self._at(name), "link", "set", "dev", "lo", "up")
        ip("-n", self._at(name), "link", "set", "dev", "eth0", "address", self._hardware(name), "up")

    def _neighbour(self, of: str, name: str, hardware: str) -> None:
        known = (self.address(name), "lladdr", hardware, "nud", "permanent", "dev", "eth0")
        ip("-n", self._at(of), "neighbour", "replace", *known)


def ip(*arguments: str) -> None:
    """Runs `ip`.

    Raises:
        OSError: It is not there, or says no; says what it said.
    """
    done = subprocess.run(
        ["ip", *arguments], capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
    )
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


@cache
def obstacle() -> str | None:
    """Why there can be no network here; None if there can."""
    if os.geteuid() != 0:
        return "network namespaces take root"
    if shutil.which("ip") is None:
        return "`ip` is missing: install iproute2"
    try:
        with Network(("probe",)) as network:
            subprocess.run([*network.within("probe"), "true"], check=True, timeout=COMMAND_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        return f"no network namespaces here: {error}"
    return None
