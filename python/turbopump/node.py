"""A node: the composition root that wires configuration, engine, door and log. It decides nothing itself."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Literal, NoReturn, Self, TypeVar, cast

from turbopump import log
from turbopump._native import (
    Appeared,
    Asked,
    Changed,
    ClientCodec,
    Drained,
    Engine,
    Entry,
    Failed,
    Logged,
    MerkleTree,
    Replied,
    Stirred,
)
from turbopump.callbacks import Callbacks, Function
from turbopump.client import call
from turbopump.commands import Commands
from turbopump.config import Config, Happening, Terms, checked_section, engine_options
from turbopump.errors import ConfigError, TurbopumpError, error_for
from turbopump.keys import identify
from turbopump.membership import Membership
from turbopump.server import Server
from turbopump.watch import Changes

SCAN_KEYS = 1000  # keys looked at between two turns of the event loop: about 0.1 ms
WAIT_SECONDS_MIN = 0.001  # as for clients
DRAIN_GRACE_SECONDS = 1.0  # the engine keeps the deadline itself; this long we believe that it does

T = TypeVar("T")
FunctionT = TypeVar("FunctionT", bound=Function)
State = Literal["new", "starting", "running", "stopping", "stopped"]


class Node:
    """A node inside an asyncio program. Enter it to start, leave it to drain and stop.

    Reads and writes go straight to the store, in under a microsecond, whether clients are served or not; in
    a cluster, what another node keeps, or has to know first, is asked of it. `clear` is of what this node
    holds.
    Keys and values may be text, which stands for its UTF-8; what comes back is bytes.

    Attributes:
        config: The configuration it was made from.
        member: The part of it that is this node's own.
        state: `new`, `starting`, `running`, `stopping` or `stopped`.
        addresses: Where clients find it: paths, and `tcp://host:port`; empty when it does not listen.
        drained: How the drain ended; None before, and when it was cut short.

    Example:
        async with Node() as node:
            version = await node.put("greeting", "hello")
            assert await node.get("greeting") == b"hello"
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        name: str | None = None,
        listen: bool = False,
        on_shutdown: Callable[[], None] | None = None,
        engine: Callable[[dict[str, object]], Engine] = Engine,
    ) -> None:
        """A node that has not started.

        Args:
            config: By default one node that keeps everything in memory, without a limit.
            name: Which member of the configuration it is; None where there is only one, and in a cluster,
                where its private key tells.
            listen: Whether clients are served, on the sockets that the configuration names.
            on_shutdown: Called when a client sends SHUTDOWN; without it that is refused.
            engine: Makes the engine; tests give one that records.

        Raises:
            ConfigError: The configuration has no such member, or a key of the cluster is missing or wrong.
        """
        self.config = config or Config()
        self._secrets = identify(self.config, name) if self.config.cluster else None
        self.member = self.config.member(self._secrets.member if self._secrets else name)
        self.state: State = "new"
        self.addresses: Sequence[str] = ()
        self.drained: Drained | None = None
        self._listen = listen
        self._on_shutdown = on_shutdown
        self._make_engine = engine
        self._failure: TurbopumpError | None = None
        self._waits: dict[int, asyncio.Future[None]] = {}
        self._callbacks = Callbacks(self.config.callbacks, log.logger("turbopump.callbacks"))
        self._watching: set[Changes] = set()
        self._engine = cast("Engine", Absent(self))
        self._get: Callable[[bytes], bytes | None] = self._engine.get
        self._alone = self.config.cluster is None
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._relay = log.Relay()

    async def __aenter__(self) -> Self:
        """Starts the node.

        Raises:
            ConfigError: A socket cannot be bound, a member's name has no address, or the engine refuses an
                option.
            RuntimeError: It was started before.
        """
        if self.state != "new":
            raise RuntimeError("a node starts once: make another one")
        self.state = "starting"
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._start(await self._options())
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._callbacks.start(self._group.create_task, self._engine.set_rules)
        self.state = "running"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops the node: accepts nothing new, answers what was accepted, ends.

        Raises:
            NodeFailedError: The engine broke; what the body raised is its cause.
        """
        cancelled = error if isinstance(error, asyncio.CancelledError) else None
        self.state = "stopping"
        self._end_waits()
        self._stir()
        try:
            self._server.close()
            if self._failure is None:
                await self._drain()
            await self._finish()
        except asyncio.CancelledError as late:
            cancelled = late
        finally:
            self._callbacks.end()
            self._halt()
        # A plain error of the body is not the group's business: it would come out wrapped.
        try:
            await self._group.__aexit__(type(cancelled) if cancelled else None, cancelled, None)
        except ExceptionGroup:
            if self._failure is None:
                raise
        if self._failure is not None:
            raise self._failure from (None if cancelled else error)

    def abort(self) -> None:
        """Ends a drain at once: connections are closed, whatever they wait for, and callbacks ended."""
        if self.state == "stopping":
            self._callbacks.end()
            self._end_drain()

    async def get(self, key: bytes | str) -> bytes | None:
        """The value under a key, None if there is none.

        Raises:
            RequestError: The key is empty or too long.
        """
        name = key if key.__class__ is bytes else _bytes(key)
        if self._alone or self._engine.is_here(name, write=False):
            return self._get(name)
        return await self._ask(call.get(name))

    async def read(self, key: bytes | str) -> Entry | call.StoredEntry | None:
        """The value under a key with its version and expiry, None if there is none.

        Raises:
            RequestError: The key is empty or too long.
        """
        name = _bytes(key)
        if self._alone or self._engine.is_here(name, write=False):
            return self._engine.read(name)
        return await self._ask(call.read(name))

    async def put(
        self,
        key: bytes | str,
        value: bytes | str,
        *,
        ttl: float | None = None,
        if_absent: bool = False,
        if_present: bool = False,
        if_version: str | None = None,
    ) -> str:
        """Writes a value.

        Args:
            key: 1 to `limits.max_key` bytes.
            value: At most `limits.max_value` bytes.
            ttl: Lifetime in seconds, from 0.001; None for the keyspace's.
            if_absent: Write only if the key has no value.
            if_present: Write only if the key has a value.
            if_version: Write only if the key's value is of this version.

        Returns:
            The version written.

        Raises:
            RequestError: An argument is out of range; nothing changed.
            ConflictError: The condition does not hold, or the keyspace is immutable; nothing changed.
            NoSpaceError: The node or the keyspace is full; nothing changed.
        """
        ttl_ms = None if ttl is None else round(ttl * 1000)
        condition, name = _condition(if_absent=if_absent, if_present=if_present), _bytes(key)
        if self._alone or self._engine.is_here(name, write=True):
            return self._engine.put(name, _bytes(value), ttl_ms, condition, if_version)
        asked = call.put(
            name, value, ttl=ttl, if_absent=if_absent, if_present=if_present, if_version=if_version
        )
        return await self._ask(asked)

    async def delete(self, key: bytes | str, *, if_version: str | None = None) -> str | None:
        """Deletes a key.

        Returns:
            The version of the deletion, None if there was nothing to delete.

        Raises:
            RequestError: An argument is out of range; nothing changed.
            ConflictError: The value is of another version than `if_version`; nothing changed.
        """
        name = _bytes(key)
        if self._alone or self._engine.is_here(name, write=True):
            return self._engine.delete(name, if_version)
        return await self._ask(call.delete(name, if_version=if_version))

    async def exists(self, key: bytes | str) -> bool:
        """Whether there is a value under a key.

        Raises:
            RequestError: The key is empty or too long.
        """
        name = _bytes(key)
        if self._alone or self._engine.is_here(name, write=False):
            return self._engine.exists(name)
        return await self._ask(call.exists(name))

    async def wait(self, key: bytes | str, timeout: float) -> str:  # noqa: ASYNC109 - as the clients have it
        """Waits until a key has a value.

        Args:
            key: It may have one already.
            timeout: Seconds, from 0.001.

        Returns:
            The version of the value.

        Raises:
            RequestError: An argument is out of range.
            UnavailableError: With the code `timeout`: the key has no value still. With `shutting_down`: the
                node stops. With `busy`: as many wait as `limits.max_waits` allows.
        """
        if not timeout >= WAIT_SECONDS_MIN:
            raise error_for(
                "bad_param", f"timeout={timeout!r} is not valid: seconds, from {WAIT_SECONDS_MIN}"
            )
        name, engine = _bytes(key), self._engine
        if not self._alone and not engine.is_here(name, write=False):
            return await self._ask(call.wait(name, timeout))
        try:
            async with asyncio.timeout(timeout):
                while isinstance(found := engine.wait(name), int):  # again, if it is deleted before we look
                    await self._appeared(engine, name, found)
                return found
        except TimeoutError:
            raise error_for("timeout", "it did not happen within the time given") from None

    async def list(self, prefix: bytes | str = b"") -> AsyncIterator[bytes]:
        """The keys of the whole cluster that begin with a prefix, in no order. Other tasks run in between.

        A key that is there all the time comes once; one written or deleted meanwhile may come or not.

        Raises:
            UnavailableError: None of the nodes that keep some of the keys answers.
        """
        cursor, start = 0, _bytes(prefix)
        if not (self._alone or self._engine.has_all()):
            place: int | None = 0
            while place is not None:
                page = await self._ask(call.page(start, place, SCAN_KEYS))
                for name in page.keys:
                    yield name
                place = page.cursor
            return
        while True:
            cursor, found = self._engine.scan(cursor, SCAN_KEYS, start)
            for key, _size in found:
                yield key
            if cursor == 0:
                return
            await asyncio.sleep(0)

    @asynccontextmanager
    async def watch(
        self, prefix: bytes | str = b"", *, since: int | None = None, kinds: Iterable[str] = ()
    ) -> AsyncIterator[Changes]:
        """What changes on the node, from now on.

        Args:
            prefix: What their keys begin with.
            since: A `revision` of this node: what changed after it comes first. None for from now on.
            kinds: Some of written, arrived (from another node), healed, deleted, expired and lost (to another
                write); all of them by default.

        Raises:
            UnavailableError: With the code `gone`: some of what changed since is not kept any more, or it is
                from before the node's last start. With `busy`: as many watch as `limits.max_watches` allows.
            RequestError: There is no such kind.

        Example:
            async with node.watch("orders/") as changes:
                async for change in changes:
                    print(change.kind, change.key)
        """
        watch = self._engine.watch(_bytes(prefix), ",".join(kinds) or None, since)
        changes = Changes(watch, lambda: self.state == "running")
        self._watching.add(changes)
        try:
            yield changes
        finally:
            self._watching.discard(changes)
            changes.close()

    def on(self, *events: Happening, prefix: str = "", **terms: float) -> Callable[[FunctionT], FunctionT]:
        """Has a function called when something happens to a key: a decorator, before the start or after.

        A coroutine function runs as a task of the node, any other one in a thread. It is given a `Changed`:
        `kind`, `key`, `version`, `size` and `revision`. What it raises is logged.

        Args:
            events: Of what kinds; without any, all but `lost`.
            prefix: What the keys begin with.
            terms: `concurrency`, `timeout`, `retries`, `backoff`, `queue`, as in the configuration.

        Raises:
            ConfigError: There is no such event, or a term is out of range.

        Example:
            @node.on("written", prefix="orders/")
            async def ordered(change):
                print(change.key, await node.get(change.key))
        """
        document = {"prefix": prefix, **terms} | ({"events": events} if events else {})
        checked = checked_section(Terms, document)

        def add(function: FunctionT) -> FunctionT:
            self._callbacks.add(checked, function)
            return function

        return add

    async def clear(self) -> int:
        """Deletes every key that this node keeps. Returns how many there were."""
        return self._engine.clear()

    def merkle(self) -> MerkleTree:
        """The digest tree of what the node holds now."""
        return self._engine.merkle()

    def stats(self) -> dict[str, object]:
        """Counters since the start and gauges of now, by name; of each callback too."""
        return self._engine.stats() | {"callbacks": self._callbacks.stats()}

    async def _options(self) -> dict[str, object]:
        """The engine's. Names of other boxes are looked up meanwhile, which may take seconds."""
        if self._secrets is None:
            return engine_options(self.config, self.member)
        return await asyncio.to_thread(engine_options, self.config, self.member, self._secrets)

    def _start(self, options: dict[str, object]) -> None:
        """Everything that may fail, and nothing that waits: so nothing is half started."""
        try:
            engine = self._make_engine(options)
        except ValueError as error:
            raise ConfigError([str(error)]) from error
        born = time.monotonic()
        membership = Membership(
            self.config,
            self.member,
            engine,
            addresses=lambda: list(self.addresses),
            sync=getattr(engine, "sync", None),
        )
        commands = Commands(
            self.config,
            self.member,
            engine,
            state=lambda: self.state,
            addresses=lambda: list(self.addresses),
            uptime=lambda: time.monotonic() - born,
            cluster=membership.status,
            callbacks=self._callbacks.stats,
            shut_down=self._on_shutdown,
        )
        table = commands.table() | membership.table()
        self._server = Server(self.member, engine, table, log.logger("turbopump.server"))
        try:
            engine.start()
            if self._listen:
                self._server.open()
        except BaseException:
            engine.stop()
            self.state = "stopped"
            raise
        self.addresses = self._server.addresses
        self._engine, self._get = engine, engine.get
        self._loop.add_reader(engine.fileno(), self._pump)

    def _pump(self) -> None:
        """Takes what the engine has to say. Runs whenever its descriptor is readable."""
        for event in self._engine.poll_events():
            match event:
                case Asked():
                    self._group.create_task(self._server.answer(event))
                case Logged():
                    self._relay.say(event)
                case Appeared(wait):
                    self._end_waits(wait)
                case Replied(number, reply):
                    self._end_call(number, reply)
                case Changed():
                    self._callbacks.take(event)
                case Stirred():
                    self._stir()
                case Drained():
                    self.drained = event
                    self._end_drain()
                case Failed(message):
                    self._fail(error_for("node_failed", message))

    def _fail(self, failure: TurbopumpError) -> None:
        """A task that raises is how the group tells the body of `async with`."""
        if self._failure is None:
            self._failure = failure
            self._end_waits()
            self._stir()
            self._loop.remove_reader(self._engine.fileno())  # there is nothing more to hear
            self._group.create_task(_raise(failure))

    async def _appeared(self, engine: Engine, key: bytes, wait: int) -> None:
        """Waits until a wait of the engine is over, or the node is about to be."""
        over = self._waits[wait] = self._loop.create_future()
        try:
            if self.state != "running":
                raise error_for("shutting_down", "the node is shutting down")
            await over
        finally:
            del self._waits[wait]
            engine.forget(key, wait)

    async def _ask(self, asked: call.Call[T]) -> T:
        """Has a command run where its key is kept, and waits for those who must know of it."""
        codec = ClientCodec()
        _, request = codec.request(asked.command, asked.params, asked.value)
        number = self._engine.execute(request)
        replied = self._calls[number] = self._loop.create_future()
        try:
            [answer] = codec.feed(await replied)
        finally:
            del self._calls[number]
        return asked.result(answer)

    def _end_call(self, number: int, reply: bytes) -> None:
        replied = self._calls.get(number)
        if replied is not None and not replied.done():  # else nobody waits any more
            replied.set_result(reply)

    def _end_waits(self, *waits: int) -> None:
        """Has these look whether they are over; all of them, without a number."""
        for wait in waits or self._waits:
            over = self._waits.get(wait)
            if over is not None and not over.done():  # else nobody waits any more
                over.set_result(None)

    async def _finish(self) -> None:
        """Runs the callbacks that are due; a node that stops waits for them as long as for its clients."""
        if self._failure is None and self._callbacks.stats():
            self._pump()
        await self._callbacks.close(self.config.drain_seconds)

    def _stir(self) -> None:
        for changes in self._watching:
            changes.stir()

    def _end_drain(self) -> None:
        if self.state == "stopping" and not self._over.done():
            self._over.set_result(None)

    async def _drain(self) -> None:
        deadline = self.config.drain_seconds
        self._engine.drain(round(deadline * 1000))
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline + DRAIN_GRACE_SECONDS):
                await self._over

    def _halt(self) -> None:
        self._loop.remove_reader(self._engine.fileno())
        self._engine.stop()
        for replied in self._calls.values():
            if not replied.done():
                replied.set_exception(error_for("shutting_down", "the node stopped before it was answered"))
        self._engine = cast("Engine", Absent(self))
        self._get = self._engine.get
        self.state = "stopped"


class Absent:
    """Stands where the engine will be, or was: nobody must write into a store that is gone."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def __getattr__(self, _name: str) -> Callable[..., NoReturn]:
        """Any method, which says when it could be called."""

        def refuse(*_args: object) -> NoReturn:
            raise RuntimeError(f"the node is {self._node.state}: use it inside `async with`")

        return refuse


def _bytes(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _condition(*, if_absent: bool, if_present: bool) -> Literal["absent", "present"] | None:
    if if_absent and if_present:
        raise error_for("bad_param", "if_absent and if_present: no write meets both, give one")
    if if_absent:
        return "absent"
    return "present" if if_present else None


async def _raise(failure: TurbopumpError) -> NoReturn:
    raise failure
