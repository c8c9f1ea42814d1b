"""A network that misbehaves on demand: a relay in this process for each direction between two nodes.

Not a simulation: time is real, and what is in the datagrams is sealed.
"""

import asyncio
import random
import socket
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import permutations
from typing import Final

DATAGRAM_BYTES_MAX: Final = 65_535
BATCH: Final = 64  # datagrams taken between two turns of the event loop: about a millisecond
WAITING_MAX: Final = 10_000  # datagrams delayed on one way; what is more is lost, as in a full queue
RECEIVE_BYTES: Final = 4 << 20  # what may arrive while the program computes; the system may allow less

Place = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """What happens to the datagrams of every way, each by itself."""

    loss: float = 0.0
    """The part that is lost, 0 to 1."""
    delay: float = 0.0
    """Seconds on the way."""
    jitter: float = 0.0
    """Up to so many seconds more, evenly at random, so that datagrams overtake each other."""
    duplicate: float = 0.0
    """The part that arrives twice, 0 to 1."""

    def __post_init__(self) -> None:
        """Refuses what cannot be.

        Raises:
            ValueError: A figure is out of range; names it.
        """
        for field in fields(self):
            value, most = getattr(self, field.name), 1.0 if field.name in {"loss", "duplicate"} else 60.0
            if not 0 <= value <= most:
                raise ValueError(f"{field.name}={value!r}: 0 to {most:g}")


@dataclass(slots=True)
class Traffic:
    """What became of the datagrams from one node to another so far."""

    carried: int = 0
    """Handed on, those that came twice counted twice."""
    lost: int = 0
    """By the weather, or because too many waited."""
    repeated: int = 0
    """Handed on once more than they were sent."""
    cut: int = 0
    """Sent or due while the way was cut."""


class Way:
    """One direction between two nodes.

    Attributes:
        source: Who sends here.
        target: Who is to have it.
        door: The socket that the source takes for the target.
        is_open: Whether anything passes.
        traffic: What became of what was sent.
    """

    def __init__(self, source: str, target: str, host: str) -> None:
        self.source = source
        self.target = target
        self.is_open = True
        self.traffic = Traffic()
        self.waiting = 0
        self._weather = Weather()
        self._chance = random.Random(0)  # noqa: S311 - to be repeated, not to be secret
        self.door = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self.door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
            self.door.bind((host, 0))
        except OSError:
            self.door.close()
            raise

    def change(self, weather: Weather, seed: int) -> None:
        """Has another weather, with chances of this way's own: what happens on others does not alter them."""
        self._weather = weather
        self._chance = random.Random(f"{seed} {self.source} {self.target}")  # noqa: S311 - as above

    def fates(self) -> Sequence[float]:
        """The delays in seconds after which the next datagram arrives: of each copy, none if it is lost."""
        sky, chance = self._weather, self._chance
        # As many draws for each, so that the fate of the hundredth does not depend on the others'.
        lost, twice, first, second = (chance.random() for _ in range(4))
        if lost < sky.loss:
            self.traffic.lost += 1
            return ()
        delays = [sky.delay + sky.jitter * first, sky.delay + sky.jitter * second]
        if twice < sky.duplicate:
            self.traffic.repeated += 1
            return delays
        return delays[:1]


class Network:
    """The ways between all nodes. `join` each node that starts, `close` at the end."""

    def __init__(self, names: Sequence[str], host: str) -> None:
        """A network whose nodes are not there yet, in the running event loop.

        Args:
            names: The nodes'.
            host: The loopback address that everything is bound to.

        Raises:
            OSError: The system refuses a socket.
        """
        self._names = tuple(names)
        self._places: dict[str, Place] = {}
        self._ways: dict[tuple[str, str], Way] = {}
        self._loop = asyncio.get_running_loop()
        try:
            for source, target in permutations(names, 2):
                way = self._ways[source, target] = Way(source, target, host)
                self._loop.add_reader(way.door, partial(self._take, way))
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Ends it; what is on its way is lost."""
        self._places.clear()
        for way in self._ways.values():
            self._loop.remove_reader(way.door)
            way.door.close()

    def door(self, source: str, target: str) -> Place:
        """Where a node finds another one."""
        host, port = self._ways[source, target].door.getsockname()
        return host, port

    def join(self, name: str, place: Place) -> None:
        """A node is there."""
        self._places[name] = place

    def leave(self, name: str) -> None:
        """It is not any more: nothing comes from it or goes to it, not even a goodbye."""
        self._places.pop(name, None)

    def is_whole(self, name: str, other: str) -> bool:
        """Whether two nodes reach each other, in both directions."""
        both = {name, other} <= self._places.keys()
        return both and self._ways[name, other].is_open and self._ways[other, name].is_open

    def traffic(self, source: str, target: str) -> Traffic:
        """What became so far of what one node sent to another."""
        return replace(self._way(source, target).traffic)

    def cut(self, source: str, target: str) -> None:
        """Nothing from one node reaches the other any more."""
        self._way(source, target).is_open = False

    def split(self, groups: Iterable[Collection[str]]) -> None:
        """Cuts all ways between groups; those in none are one more.

        Raises:
            KeyError: There is no such node.
            ValueError: A node is in two groups.
        """
        group_of: dict[str, int] = {}
        for index, group in enumerate(groups):
            for name in group:
                if name not in self._names:
                    raise KeyError(name)
                if name in group_of:
                    raise ValueError(f"{name} stands in two groups")
                group_of[name] = index
        for (source, target), way in self._ways.items():
            if group_of.get(source) != group_of.get(target):
                way.is_open = False

    def mend(self) -> None:
        """Opens all ways."""
        for way in self._ways.values():
            way.is_open = True

    def change(self, weather: Weather, seed: int) -> None:
        """Has another weather on all ways."""
        for way in self._ways.values():
            way.change(weather, seed)

    def _way(self, source: str, target: str) -> Way:
        for name in (source, target):
            if name not in self._names:
                raise KeyError(name)
        if source == target:
            raise ValueError(f"{source} has no way to itself")
        return self._ways[source, target]

    def _take(self, way: Way) -> None:
        """Takes what a node has sent to another."""
        for _ in range(BATCH):
            try:
                datagram, sender = way.door.recvfrom(DATAGRAM_BYTES_MAX)
            except BlockingIOError:
                return
            if sender != self._places.get(way.source):
                continue  # of a node that was killed, or of a stranger
            if not way.is_open:
                way.traffic.cut += 1
                continue
            for delay in way.fates():
                if delay == 0:
                    self._hand_on(way, datagram)
                elif way.waiting < WAITING_MAX:
                    way.waiting += 1
                    self._loop.call_later(delay, self._arrive, way, datagram)
                else:
                    way.traffic.lost += 1

    def _arrive(self, way: Way, datagram: bytes) -> None:
        way.waiting -= 1
        if way.is_open:
            self._hand_on(way, datagram)
        else:
            way.traffic.cut += 1

    def _hand_on(self, way: Way, datagram: bytes) -> None:
        """Sends it out of the door of the way back, so that the target knows the source by that address."""
        place = self._places.get(way.target)
        if place is None:
            return
        try:
            self._ways[way.target, way.source].door.sendto(datagram, place)
        except OSError:  # the system has no room for it: such networks are
            way.traffic.lost += 1
        else:
            way.traffic.carried += 1
