"""`AsyncClient`: one connection that any number of tasks use at once; ids keep their answers apart."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from turbopump._native import Answer, ClientCodec
from turbopump.client import address, call
from turbopump.client.address import Address
from turbopump.client.call import Bytes, Call, KeyVersion, StoredEntry
from turbopump.client.changes_asynchronous import AsyncChanges
from turbopump.client.pipeline import AsyncPipeline
from turbopump.errors import TurbopumpError, error_for

T = TypeVar("T")


class Exchange:
    """Commands that were sent together, and the answers so far."""

    def __init__(self, ids: Sequence[int], done: asyncio.Future[list[Answer]]) -> None:
        self.ids = ids
        self.done = done
        self._answers: list[Answer] = []

    def take(self, answer: Answer) -> None:
        """The next answer."""
        self._answers.append(answer)
        if len(self._answers) == len(self.ids) and not self.done.done():
            self.done.set_result(self._answers)

    def fail(self, error: TurbopumpError) -> None:
        """There will be no more answers."""
        if not self.done.done():
            self.done.set_exception(error)


class Connection(asyncio.Protocol):
    """A transport and its codec. An answer that nobody waits for any more is dropped, by its id."""

    _transport: asyncio.Transport

    def __init__(self, where: Address, codec: ClientCodec) -> None:
        self._where = where
        self._codec = codec
        self._waiting: dict[int, Exchange] = {}
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost: TurbopumpError | None = None

    @property
    def is_lost(self) -> bool:
        """Whether no call can use it any more."""
        return self._lost is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The transport is there."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Gives answers to those who wait for them."""
        try:
            answers = self._codec.feed(data)
        except TurbopumpError as error:
            self._lose(error)
            return
        for answer in answers:
            exchange = self._waiting.pop(answer.id, None)
            if exchange is not None:
                exchange.take(answer)

    def connection_lost(self, error: Exception | None) -> None:
        """Tells those who wait."""
        self._lose(self._where.closed(error))

    def pause_writing(self) -> None:
        """The node does not read as fast as we write."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._writable.set()

    async def exchange(self, calls: Sequence[Call[Any]]) -> Sequence[Answer]:
        """Sends commands and takes their answers.

        Returns:
            The answers, in the order of the calls.

        Raises:
            ConnectionLostError: The connection broke.
            ProtocolError: The node broke the protocol.
        """
        if self._lost is not None:
            raise error_for(self._lost.code, str(self._lost))
        requests = [self._codec.request(asked.command, asked.params, asked.value) for asked in calls]
        exchange = Exchange([id_ for id_, _ in requests], asyncio.get_running_loop().create_future())
        self._waiting.update(dict.fromkeys(exchange.ids, exchange))
        try:
            self._transport.write(b"".join([data for _, data in requests]))
            await self._writable.wait()
            return await exchange.done
        finally:
            for id_ in exchange.ids:
                self._waiting.pop(id_, None)

    def close(self) -> None:
        """Ends the connection."""
        self._transport.abort()

    def _lose(self, error: TurbopumpError) -> None:
        if self._lost is not None:
            return
        self._lost = error
        self._writable.set()
        for exchange in self._waiting.values():
            exchange.fail(error_for(error.code, str(error)))
        self._transport.abort()


async def _connect(where: Address, password: str | None) -> Connection:
    """A connection that has been greeted."""
    codec = ClientCodec()
    opened = await _dial(where, codec, password)
    loop = asyncio.get_running_loop()
    try:
        _, connection = await loop.create_connection(lambda: Connection(where, codec), sock=opened)
    except OSError as error:
        opened.close()
        raise where.closed(error) from error
    except BaseException:
        opened.close()
        raise
    return connection


async def _dial(where: Address, codec: ClientCodec, password: str | None) -> socket.socket:
    """A socket that has been greeted. A node that turns clients away says why before it reads."""
    try:
        opened = await _open(where)
    except OSError as error:
        raise where.unreachable(error) from error
    try:
        await _greet(opened, codec, password)
    except OSError as error:
        opened.close()
        raise where.closed(error) from error
    except BaseException:
        opened.close()
        raise
    return opened


async def _open(where: Address) -> socket.socket:
    loop = asyncio.get_running_loop()
    if where.host is None:
        targets: list[tuple[int, Any]] = [(socket.AF_UNIX, where.text)]
    else:
        found = await loop.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)
        targets = [(family, name) for family, _, _, _, name in found]
    for attempt, (family, name) in enumerate(targets, start=1):
        opened = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await loop.sock_connect(opened, name)
        except BaseException as error:
            opened.close()
            if not isinstance(error, OSError) or attempt == len(targets):
                raise
        else:
            return opened
    raise OSError("its name has no address")


async def _greet(opened: socket.socket, codec: ClientCodec, password: str | None) -> None:
    loop = asyncio.get_running_loop()
    _, ping = codec.request("ping", {})
    with suppress(BrokenPipeError):  # then it has said why
        await loop.sock_sendall(opened, codec.hello(password) + ping)
    while True:
        data = await loop.sock_recv(opened, 4096)
        if not data:
            raise ConnectionResetError("end of stream")
        for answer in codec.feed(data):
            if answer.code is not None:
                raise call.refusal(answer)
            if answer.id != 0:
                return


class AsyncClient:
    """A node, as other asyncio programs see it. Connects at the first call.

    Any number of tasks may call at once: their commands share a connection and are answered in order. A call
    that is cancelled or takes too long leaves the others alone; whether it happened is unknown.

    Keys and values may be text, which stands for its UTF-8; what comes back is bytes. Any call may raise
    ConnectionLostError (the node is away, or went away), UnavailableError (it did not answer in time, is busy
    or shutting down), DeniedError and ProtocolError; the methods name only what is their own.

    Example:
        async with AsyncClient() as client:
            version = await client.put("greeting", "hello")
            assert await client.get("greeting") == b"hello"
    """

    def __init__(
        self, node: str | None = None, *, password: str | None = None, timeout: float = 30.0
    ) -> None:
        """A client that has not connected.

        Args:
            node: A socket path or `tcp://host:port`; None for $TURBOPUMP_SOCKET, then /tmp/turbopump.
            password: Given to nodes over TCP.
            timeout: Seconds a call may take, connecting included.

        Raises:
            ValueError: `node` is no address.
        """
        self._where = address.parse(node)
        self._password = password
        self._timeout = timeout
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Connects, so that a wrong address is known at once."""
        async with self._patience():
            await self._connected()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection; calls in flight raise. The next call makes another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def get(self, key: Bytes) -> bytes | None:
        """The value under a key, None if there is none.

        Raises:
            RequestError: The key is empty or too long.
        """
        return await self._run(call.get(key))

    async def read(self, key: Bytes, *, version: str | None = None) -> StoredEntry | None:
        """The value under a key with its version and expiry, None if there is none.

        Args:
            key: 1 to `limits.max_key` bytes.
            version: One of `versions`, also one that lost to another write; None for what the key is now.

        Raises:
            RequestError: The key is empty or too long, or `version` is none.
        """
        return await self._run(call.read(key, version))

    async def put(
        self,
        key: Bytes,
        value: Bytes,
        *,
        ttl: float | None = None,
        if_absent: bool = False,
        if_present: bool = False,
        if_version: str | None = None,
        once: str | None = None,
    ) -> str:
        """Writes a value.

        Args:
            key: 1 to `limits.max_key` bytes.
            value: At most `limits.max_value` bytes.
            ttl: Lifetime in seconds, from 0.001; None for the keyspace's.
            if_absent: Write only if the key has no value.
            if_present: Write only if the key has a value.
            if_version: Write only if the key's value is of this version.
            once: A name for this write, 1 to 64 bytes, that no other one has. If it is sent again, because
                nobody knows what became of it, it is done once, and this returns what it did then.

        Returns:
            The version written.

        Raises:
            RequestError: An argument is out of range; nothing changed.
            ConflictError: The condition does not hold, or the keyspace is immutable; nothing changed.
            NoSpaceError: The node or the keyspace is full; nothing changed.
        """
        asked = call.put(
            key,
            value,
            ttl=ttl,
            if_absent=if_absent,
            if_present=if_present,
            if_version=if_version,
            once=once,
        )
        return await self._run(asked)

    async def delete(
        self, key: Bytes, *, if_version: str | None = None, once: str | None = None
    ) -> str | None:
        """Deletes a key.

        Args:
            key: 1 to `limits.max_key` bytes.
            if_version: Delete only if the key's value is of this version.
            once: As for `put`.

        Returns:
            The version of the deletion, None if there was nothing to delete.

        Raises:
            RequestError: An argument is out of range; nothing changed.
            ConflictError: The value is of another version than `if_version`; nothing changed.
        """
        return await self._run(call.delete(key, if_version=if_version, once=once))

    async def exists(self, key: Bytes) -> bool:
        """Whether there is a value under a key.

        Raises:
            RequestError: The key is empty or too long.
        """
        return await self._run(call.exists(key))

    async def list(self, prefix: Bytes = b"", *, page: int = call.PAGE_KEYS) -> AsyncIterator[bytes]:
        """The keys that begin with a prefix, in no order, fetched as they are needed.

        A key that is there all the time comes once; one written or deleted meanwhile may come or not.

        Args:
            prefix: Empty for all keys.
            page: About how many keys to fetch at once.
        """
        cursor: int | None = 0
        while cursor is not None:
            found = await self._run(call.page(prefix, cursor, page))
            for key in found.keys:
                yield key
            cursor = found.cursor

    async def versions(self, key: Bytes) -> Sequence[KeyVersion]:
        """What the node remembers of a key, deletions too; empty if nothing.

        Raises:
            RequestError: The key is empty or too long.
        """
        return await self._run(call.versions(key))

    async def wait(self, key: Bytes, timeout: float) -> str:  # noqa: ASYNC109 - the node keeps it
        """Waits until a key has a value, on a connection of its own: answers come in order.

        Args:
            key: It may have one already.
            timeout: Seconds, from 0.001.

        Returns:
            The version of the value.

        Raises:
            UnavailableError: With the code `timeout`: the key has no value still.
        """
        asked = call.wait(key, timeout)
        async with self._patience(timeout):
            connection = await _connect(self._where, self._password)
            try:
                [answer] = await connection.exchange([asked])
            finally:
                connection.close()
        return asked.result(answer)

    @asynccontextmanager
    async def watch(
        self, prefix: Bytes = b"", *, since: int | None = None, kinds: Iterable[str] = ()
    ) -> AsyncIterator[AsyncChanges]:
        """What changes on the node, from now on, on a connection of its own.

        Args:
            prefix: What their keys begin with.
            since: A `revision` of this node: what changed after it comes first. None for from now on.
            kinds: Some of written, arrived (from another node), healed, deleted, expired and lost (to another
                write); all of them by default.

        Raises:
            UnavailableError: With the code `gone`: some of what changed since is not kept any more, or it is
                from before the node's last start. With `busy`: as many watch as `limits.max_watches` allows.

        Example:
            async with client.watch("orders/") as changes:
                async for change in changes:
                    print(change.kind, change.key)
        """
        codec = ClientCodec()
        async with self._patience():
            opened = await _dial(self._where, codec, self._password)
        changes = AsyncChanges(self._where, opened, codec, self._timeout)
        try:
            await changes.open(call.watch(prefix, since, kinds))
            yield changes
        finally:
            changes.close()

    async def status(self) -> dict[str, Any]:
        """How the node does: name, state, addresses, build, counters."""
        return await self._run(call.status())

    async def sync(self) -> str:
        """Has the node compare what it holds with its peers now, as `Client.sync`."""
        return await self._run(call.sync())

    async def ping(self) -> None:
        """Returns if the node answers."""
        await self._run(call.ping())

    def pipeline(self, *, raise_errors: bool = True) -> AsyncPipeline:
        """Many commands in one round trip, as `Client.pipeline`, in an `async with` block.

        Args:
            raise_errors: Whether the first refused command raises, once all are answered; otherwise errors
                are values in `results`.
        """
        return AsyncPipeline(self._exchange, raise_errors=raise_errors)

    async def _run(self, asked: Call[T]) -> T:
        [answer] = await self._exchange([asked])
        return asked.result(answer)

    async def _exchange(self, calls: Sequence[Call[Any]]) -> Sequence[Answer]:
        async with self._patience():
            connection = await self._connected()
            return await connection.exchange(calls)

    async def _connected(self) -> Connection:
        if self._connection is not None and not self._connection.is_lost:
            return self._connection
        async with self._connecting:  # whoever comes second finds the first one's
            if self._connection is None or self._connection.is_lost:
                self._connection = await _connect(self._where, self._password)
            return self._connection

    @asynccontextmanager
    async def _patience(self, more: float = 0.0) -> AsyncIterator[None]:
        seconds = self._timeout + more
        try:
            async with asyncio.timeout(seconds):
                yield
        except TimeoutError as error:
            raise self._where.silent(seconds) from error
