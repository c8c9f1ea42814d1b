"""`Client`: one connection, one call at a time. Threads may share it; they take turns."""

import select
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from threading import Lock
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar

from turbopump._native import Answer, ClientCodec
from turbopump.client import address, call
from turbopump.client.address import Address
from turbopump.client.call import Bytes, Call, KeyVersion, StoredEntry
from turbopump.client.changes import Changes, stray
from turbopump.client.pipeline import Pipeline

RECEIVE_BYTES = 256 * 1024
CHUNK_BYTES = 1024 * 1024
SEND_AT_ONCE_BYTES = 64 * 1024  # fits in a socket's buffer: sending it never waits for the node to read

T = TypeVar("T")


class Connection:
    """A socket and its codec. After any exception it is of no use: answers may still be on their way.

    Attributes:
        spent: Whether a request was left unsent because it was refused at its first bytes: then, too, it is
            of no use.
    """

    def __init__(self, where: Address, password: str | None, timeout: float) -> None:
        """Connects and greets.

        Raises:
            ConnectionLostError: Nobody is there.
            DeniedError: The password is wrong or missing, or this user is no guest.
        """
        self._where = where
        self._timeout = timeout  # as the socket has it: setting it costs a system call
        self._codec = ClientCodec()
        self.spent = False
        self._socket = _connect(where, timeout)
        try:
            self.exchange([call.ping()], timeout, self._codec.hello(password))
        except BaseException:
            self.close()
            raise

    def exchange(self, calls: Sequence[Call[Any]], timeout: float, greeting: bytes = b"") -> list[Answer]:
        """Sends commands and takes their answers.

        Args:
            calls: In order.
            timeout: Seconds of silence.
            greeting: Goes first; its answer counts only if it is an error.

        Returns:
            The answers, in the order of the calls.

        Raises:
            ConnectionLostError: The connection broke.
            UnavailableError: The node took too long.
            ProtocolError: The node broke the protocol.
        """
        requests = [self._codec.request(asked.command, asked.params, asked.value) for asked in calls]
        data = greeting + b"".join([request for _, request in requests])
        return self._converse([id_ for id_, _ in requests], data, timeout)

    def upload(self, asked: Call[Any], size: int, chunks: Iterable[bytes], timeout: float) -> Answer:
        """Sends a command whose value is made on the way.

        Args:
            asked: Without a value.
            size: Bytes of the value.
            chunks: The value, in pieces.
            timeout: Seconds of silence.

        Returns:
            The answer.

        Raises:
            As `exchange`, and whatever `chunks` raises.
        """
        id_, request = self._codec.request(asked.command, asked.params | {"length": size})
        header, end = request[:-1], request[-1:]  # the newline ends the request, so it follows the value
        [answer] = self._converse([id_], chain([header], chunks, [end]), timeout)
        return answer

    def stream(self, asked: Call[Any], timeout: float) -> Iterator[Answer]:
        """Sends a command that is answered again and again.

        Args:
            asked: Without a value.
            timeout: Seconds of silence.

        Raises:
            As `exchange`.
        """
        id_, request = self._codec.request(asked.command, asked.params)
        try:
            self._be_patient(timeout)
            self._socket.sendall(request)
            while True:
                answers: list[Answer] = []
                self._receive(answers)
                if any(answer.id != id_ for answer in answers):
                    raise stray()
                yield from answers
        except TimeoutError as error:
            raise self._where.silent(timeout) from error
        except OSError as error:
            raise self._where.closed(error) from error

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()

    def _converse(self, ids: list[int], data: bytes | Iterable[bytes], timeout: float) -> list[Answer]:
        answers: list[Answer] = []
        try:
            self._be_patient(timeout)
            if isinstance(data, bytes) and len(data) <= SEND_AT_ONCE_BYTES:
                self._socket.sendall(data)
            else:
                self._send([data] if isinstance(data, bytes) else data, answers, len(ids))
            while len(answers) < len(ids):
                self._receive(answers)
        except TimeoutError as error:
            raise self._where.silent(timeout) from error
        except OSError as error:
            self._hear_out(answers)
            if len(answers) < len(ids):
                raise self._where.closed(error) from error
            self.spent = True
        if [answer.id for answer in answers] != ids:
            raise stray()
        return answers

    def _send(self, chunks: Iterable[bytes], answers: list[Answer], wanted: int) -> None:
        """Reads while it sends: a node stops reading from a client that leaves its answers unread.

        Ends when all is answered, sent or not: a node need not wait for a value that it refuses.
        """
        poller = select.poll()
        poller.register(self._socket, select.POLLIN | select.POLLOUT)
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest:
                ready = poller.poll(self._timeout * 1000)
                if not ready:
                    raise TimeoutError
                [(_, happened)] = ready
                if happened & ~select.POLLOUT:
                    self._receive(answers)
                if len(answers) == wanted:
                    self.spent = True
                    return
                if happened & select.POLLOUT:
                    rest = rest[self._socket.send(rest) :]

    def _receive(self, answers: list[Answer]) -> None:
        chunk = self._socket.recv(RECEIVE_BYTES)
        if not chunk:
            raise ConnectionResetError("end of stream")
        for answer in self._codec.feed(chunk):
            if answer.id != 0:
                answers.append(answer)
            elif answer.code is not None:
                raise call.refusal(answer)

    def _hear_out(self, answers: list[Answer]) -> None:
        """What a node says before it closes is why it does."""
        with suppress(OSError):
            while True:
                self._receive(answers)
        if answers and answers[-1].code is not None:
            raise call.refusal(answers[-1])

    def _be_patient(self, timeout: float) -> None:
        if timeout != self._timeout:
            self._socket.settimeout(timeout)
            self._timeout = timeout


def _connect(where: Address, timeout: float) -> socket.socket:
    try:
        if where.host is not None:
            connected = socket.create_connection((where.host, where.port), timeout)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connected
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        raise where.unreachable(error) from error
    try:
        connected.settimeout(timeout)
        connected.connect(where.text)
    except OSError as error:
        connected.close()
        raise where.unreachable(error) from error
    return connected


class Client:
    """A node, as other programs see it. Connects at the first call.

    Keys and values may be text, which stands for its UTF-8; what comes back is bytes. Any call may raise
    ConnectionLostError (the node is away, or went away), UnavailableError (it did not answer in time, is busy
    or shutting down), DeniedError and ProtocolError; the methods name only what is their own.

    Example:
        >>> with Client() as client:
        ...     version = client.put("greeting", "hello")
        ...     client.get("greeting")
        b'hello'
    """

    def __init__(
        self, node: str | None = None, *, password: str | None = None, timeout: float = 30.0
    ) -> None:
        """A client that has not connected.

        Args:
            node: A socket path or `tcp://host:port`; None for $TURBOPUMP_SOCKET, then /tmp/turbopump.
            password: Given to nodes over TCP.
            timeout: Seconds that may pass without a byte in either direction. Then the connection is closed:
                a late answer must not be taken for another call's.

        Raises:
            ValueError: `node` is no address.
        """
        self._where = address.parse(node)
        self._password = password
        self._timeout = timeout
        self._connection: Connection | None = None
        self._lock = Lock()

    def __enter__(self) -> Self:
        """Connects, so that a wrong address is known at once."""
        with self._connected():
            return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection. The next call makes another one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get(self, key: Bytes) -> bytes | None:
        """The value under a key, None if there is none.

        Raises:
            RequestError: The key is empty or too long.
        """
        return self._run(call.get(key))

    def read(self, key: Bytes, *, version: str | None = None) -> StoredEntry | None:
        """The value under a key with its version and expiry, None if there is none.

        Args:
            key: 1 to `limits.max_key` bytes.
            version: One of `versions`, also one that lost to another write; None for what the key is now.

        Raises:
            RequestError: The key is empty or too long, or `version` is none.
        """
        return self._run(call.read(key, version))

    def put(
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
        return self._run(asked)

    def put_file(
        self,
        key: Bytes,
        file: BinaryIO,
        size: int,
        *,
        ttl: float | None = None,
        if_absent: bool = False,
        if_present: bool = False,
        if_version: str | None = None,
        on_sent: Callable[[int], None] | None = None,
    ) -> str:
        """Writes what a file holds, without holding it in memory.

        Args:
            key: 1 to `limits.max_key` bytes.
            file: Read from where it stands.
            size: How many bytes of it, at most `limits.max_value`.
            ttl: As for `put`.
            if_absent: As for `put`.
            if_present: As for `put`.
            if_version: As for `put`.
            on_sent: Called with the bytes sent so far, again and again.

        Returns:
            The version written.

        Raises:
            EOFError: The file has less; nothing changed.
            RequestError: An argument is out of range; nothing changed.
            ConflictError: The condition does not hold, or the keyspace is immutable; nothing changed.
            NoSpaceError: The node or the keyspace is full; nothing changed.
        """
        asked = call.put(
            key, None, ttl=ttl, if_absent=if_absent, if_present=if_present, if_version=if_version
        )
        chunks = _chunks(file, size, on_sent)
        with self._connected() as connection:
            answer = connection.upload(asked, size, chunks, self._timeout)
        return asked.result(answer)

    def delete(self, key: Bytes, *, if_version: str | None = None, once: str | None = None) -> str | None:
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
        return self._run(call.delete(key, if_version=if_version, once=once))

    def exists(self, key: Bytes) -> bool:
        """Whether there is a value under a key.

        Raises:
            RequestError: The key is empty or too long.
        """
        return self._run(call.exists(key))

    def list(self, prefix: Bytes = b"", *, page: int = call.PAGE_KEYS) -> Iterator[bytes]:
        """The keys that begin with a prefix, in no order, fetched as they are needed.

        A key that is there all the time comes once; one written or deleted meanwhile may come or not.

        Args:
            prefix: Empty for all keys.
            page: About how many keys to fetch at once.
        """
        cursor: int | None = 0
        while cursor is not None:
            found = self._run(call.page(prefix, cursor, page))
            yield from found.keys
            cursor = found.cursor

    def versions(self, key: Bytes) -> Sequence[KeyVersion]:
        """What the node remembers of a key, deletions too; empty if nothing.

        Raises:
            RequestError: The key is empty or too long.
        """
        return self._run(call.versions(key))

    def wait(self, key: Bytes, timeout: float) -> str:
        """Waits until a key has a value.

        Args:
            key: It may have one already.
            timeout: Seconds, from 0.001.

        Returns:
            The version of the value.

        Raises:
            UnavailableError: With the code `timeout`: the key has no value still.
        """
        return self._run(call.wait(key, timeout), patience=timeout)

    def watch(self, prefix: Bytes = b"", *, since: int | None = None, kinds: Iterable[str] = ()) -> Changes:
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
            with client.watch("orders/") as changes:
                for change in changes:
                    print(change.kind, change.key)
        """
        connection = Connection(self._where, self._password, self._timeout)
        return Changes(connection, call.watch(prefix, since, kinds), self._timeout)

    def status(self) -> dict[str, Any]:
        """How the node does: name, state, addresses, build, counters."""
        return self._run(call.status())

    def sync(self) -> str:
        """Has the node compare what it holds with its peers now, and not when it is time. Returns at once.

        Returns:
            With how many it compares, in words.

        Raises:
            DeniedError: It is a node alone.
        """
        return self._run(call.sync())

    def ping(self) -> None:
        """Returns if the node answers."""
        self._run(call.ping())

    def pipeline(self, *, raise_errors: bool = True) -> Pipeline:
        """Many commands in one round trip.

        Args:
            raise_errors: Whether the first refused command raises, once all are answered; otherwise errors
                are values in `results`.

        Example:
            >>> with client.pipeline() as pipe:
            ...     pipe.put("a", "1")
            ...     a = pipe.get("a")
            >>> a.result()
            b'1'
        """
        return Pipeline(self._exchange, raise_errors=raise_errors)

    def _run(self, asked: Call[T], patience: float = 0.0) -> T:
        [answer] = self._exchange([asked], patience)
        return asked.result(answer)

    def _exchange(self, calls: Sequence[Call[Any]], patience: float = 0.0) -> Sequence[Answer]:
        with self._connected() as connection:
            return connection.exchange(calls, self._timeout + patience)

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        """The connection, which does not outlive an exception."""
        with self._lock:
            if self._connection is None:
                self._connection = Connection(self._where, self._password, self._timeout)
            try:
                yield self._connection
            except BaseException:
                self.close()
                raise
            if self._connection.spent:
                self.close()


def _chunks(file: BinaryIO, size: int, on_sent: Callable[[int], None] | None) -> Iterator[bytes]:
    left = size
    while left:
        chunk = file.read(min(left, CHUNK_BYTES))
        if not chunk:
            raise EOFError(f"the file ends {left} bytes before its {size}")
        yield chunk
        left -= len(chunk)
        if on_sent is not None:
            on_sent(size - left)
