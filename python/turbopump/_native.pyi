"""The native module: a store, the threads that serve it, and the client's half of the pipe protocol.

Private: what users need is re-exported by `turbopump`. Only values cross this line, in both directions; the
module keeps no Python object and calls nothing back. Engine threads never take the GIL: what they have to
say waits in a queue (`Engine.fileno`, `Engine.poll_events`).

Units are in the names: `_ms` milliseconds, `_us` microseconds. Versions are text: 16 hexadecimal digits of
the stamp, a dash, 16 of the node that wrote, such as `018f3c2a9b7c0001-9e3779b97f4a7c15`. Of two versions
of one key the greater text is the later one.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal, TypeAlias, TypedDict, final

_Reply: TypeAlias = bool | int | str | bytes | list[_Reply] | dict[str, _Reply] | Refusal | None
_Event: TypeAlias = Appeared | Asked | Changed | Stirred | Logged | Replied | Failed | Drained

__all__ = [
    "Answer",
    "Appeared",
    "Asked",
    "Changed",
    "ClientCodec",
    "ConflictError",
    "DeniedError",
    "Drained",
    "Engine",
    "Entry",
    "Failed",
    "Logged",
    "MerkleTree",
    "NoSpaceError",
    "NodeFailedError",
    "NotFoundError",
    "ProtocolError",
    "Refusal",
    "Replied",
    "RequestError",
    "Ring",
    "Stirred",
    "TurbopumpError",
    "UnavailableError",
    "Watch",
    "build_info",
    "key_slot",
    "load",
    "transfer_send",
    "transfer_serve",
]

def build_info() -> dict[str, str]:
    """How the module was built.

    Returns:
        `version`, `profile` (`release` or `debug`) and `git` (the commit, empty outside a checkout). Figures
        taken from a debug build mean nothing.
    """

def key_slot(key: bytes | str) -> int:
    """The slot of a key: CRC16/XMODEM modulo 16384.

    Only the text between the first `{` and the next `}` counts if there is any, so that related keys can
    share a slot. Source: the Redis Cluster specification, "Key distribution model" and "Hash tags".

    Args:
        key: Any bytes; text stands for its UTF-8.

    Returns:
        0 to 16383.
    """

def load(options: dict[str, object]) -> dict[str, object]:
    """Loads a server on this machine and measures it. Blocks until the run is over, without holding the GIL.

    Args:
        options: Those left out have a default. `address` (a socket path, or `tcp://host:port` on loopback),
            `protocol` (`resp`, `pipe` or `memcached`), `connections`, `depth` (requests in flight on each),
            `keys` (how many different ones), `key_size` and `value_size` (bytes), `reads` (percent of
            requests that read, the others write), `seconds`, `warmup_seconds`, `rate` (requests a second
            over all connections; 0 sends the next request when the last is answered; with a rate, latency
            counts from when a request was due), `prefill` (whether to write every key once first),
            `one_shot` (whether each request has a connection of its own), `pids` (the server's processes,
            to count their CPU time) and `cpu` (the one for this side, or None).

    Returns:
        `requests`, `seconds`, `rate` (requests a second), `misses`, `bad` (wrong values), `errors`,
        `first_error` (text or None), `unanswered`, `latency_us` (`min`, `mean`, `p50`, `p90`, `p99`, `p99.9`,
        `p99.99`, `max`), `percentiles` (pairs of percent and microseconds, ascending, to be drawn),
        `client_cpu` (CPUs that this side kept busy), and, None without `pids`, `server_cpu`,
        `server_us_per_request` (CPU time) and `other_cpu` (of everybody else).

    Raises:
        ValueError: An option is unknown or out of range; names it.
        OSError: The server cannot be reached or went away.
    """

class _Progress(TypedDict):
    """How far a file is, and how its connection is doing."""

    name: str
    bytes: int
    """That are over there, as far as this side knows."""
    done: bool
    """Whether the file is there, whole."""
    seconds: float
    state: str
    """Connecting, connected or closed."""
    suite: str | None
    """What packets are sealed with; None before the first keys."""
    congestion: str
    """The congestion controller: cubic, bbr or udt."""
    congestion_state: str
    """What it is doing."""
    rtt_ms: float
    """The smoothed round-trip time."""
    rtt_variance_ms: float
    rtt_min_ms: float
    """The least that was seen."""
    window: int
    """Bytes that may be in flight."""
    in_flight: int
    """Bytes that are."""
    pacing_rate: int
    """Bytes a second that packets leave at; 0: unpaced."""
    arrival_rate: int
    """Bytes a second that arrive, as the other side says; 0: unknown."""
    capacity: int
    """Bytes a second that the path could take, by packet pairs; 0: unknown."""
    mtu: int
    """Bytes of the largest datagram that the path takes."""
    packets_sent: int
    bytes_sent: int
    packets_received: int
    bytes_received: int
    packets_lost: int
    """Of those sent, as far as is known."""
    bytes_lost: int
    spurious_losses: int
    """How often packets that counted as lost came after all."""
    timeouts: int
    """How often nothing was acknowledged for so long that something was sent to find out why."""
    packets_rejected: int
    """Packets that did not open, or that were here before."""
    handshakes: int
    """The first, and each renewal of keys."""

def transfer_send(options: dict[str, object], watch: Callable[[_Progress], bool]) -> _Progress:
    """Sends a file to a `transfer_serve`. Blocks until it is there, without holding the GIL.

    Args:
        options: `private` (this side's X25519 key, 32 bytes), `peer` (the other side's public key), `shared`
            (the key that both share), `address` (the other side's IP address and port), `path` (the file's)
            and `congestion` (who sets the rate: `cubic`, `bbr` or `udt`).
        watch: Called about ten times a second; False ends it, and so does what it raises.

    Returns:
        The figures of the whole.

    Raises:
        ValueError: An option is wrong, or the other side does not keep the file: its words say why.
        ConnectionError: Nobody answers to these keys, the connection broke, or `watch` ended it.
        OSError: The file or the socket cannot be used.
    """

def transfer_serve(
    options: dict[str, object], bound: Callable[[str], object], watch: Callable[[_Progress], bool]
) -> None:
    """Receives files. Blocks until it is told to end, without holding the GIL.

    Args:
        options: As those of `transfer_send`; `address` is where to listen (port 0: any that is free) and
            `path` the directory for the files.
        bound: Called once, with the address and port.
        watch: Called about ten times a second and for each file that is there; False ends it, and so does
            what it raises.

    Raises:
        ValueError: An option is wrong.
        OSError: The socket cannot be used.
    """

class _Plan(TypedDict):
    """What changes from one ring to another."""

    moves: int
    """Replicas of slots that somebody must be given."""
    bound: int
    """The fewest that any ring with these loads must move."""
    members: dict[str, tuple[int, int]]
    """By name: how many replicas the member gains, and how many it loses."""

@final
class Ring:
    """Which members of a cluster keep which of the 16384 slots, and so which keys.

    Computed, the same on every machine, from the members and the ring before. Each member keeps slots in
    proportion to its weight; a slot's copies are on different members, and no zone has more of them than it
    must. From the ring before, only what has to move moves.

    Example:
        >>> ring = Ring(["a", "b", "c"], copies=2)
        >>> ring.owners("user:1") == ring.owners_of_slot(key_slot("user:1"))
        True
        >>> larger = Ring(["a", "b", "c", "d"], copies=2, before=ring)
        >>> larger.plan(ring)["moves"]
        8192
    """

    def __new__(
        cls,
        members: Mapping[str, int] | Iterable[str],
        *,
        copies: int = ...,
        zones: Mapping[str, str] | None = ...,
        before: Ring | None = ...,
    ) -> Ring:
        """The ring of these members.

        Args:
            members: Names, with their weights (0 to 1000000; 0 keeps nothing) or all of weight 1. 1 to 1024.
            copies: Members that keep each slot, 1 to 16; 3 by default.
            zones: By name, what a member is lost together with: a rack, a room. Who has none shares one.
            before: The ring that this one is to follow with as few moves as possible.

        Raises:
            ValueError: There are fewer members than copies, or a number is out of bounds.
        """

    @property
    def members(self) -> dict[str, int]:
        """Names with their weights, in the order of the names."""

    @property
    def copies(self) -> int:
        """Members that keep each slot."""

    def owners(self, key: bytes | str) -> list[str]:
        """The names of those who keep a key, the primary first."""

    def owners_of_slot(self, slot: int) -> list[str]:
        """The names of those who keep a slot, the primary first.

        Raises:
            IndexError: There is no such slot: they are 0 to 16383.
        """

    def loads(self) -> dict[str, tuple[int, int]]:
        """By name: how many slots a member keeps, and of how many it is the primary."""

    def plan(self, before: Ring) -> _Plan:
        """What has to move for this ring to follow `before`, and the fewest moves that could be."""

@final
class MerkleTree:
    """The digest tree of a set of entries: 16384 slots, 128 branches, one root.

    The digest of a slot is the XOR of a keyed hash of (key, version) over its entries; a branch is made of
    the 128 slots below it and the root of the 128 branches. Two trees are equal when their roots are, however
    their entries came and went. Trees can be compared only if they were made with one secret.

    Example:
        >>> mine, theirs = MerkleTree(), MerkleTree()
        >>> mine.insert("a", "018f3c2a9b7c0001-9e3779b97f4a7c15")
        >>> mine.diff(theirs) == [key_slot("a")]
        True
    """

    def __new__(cls, secret: bytes = ...) -> MerkleTree:
        """An empty tree.

        Args:
            secret: 16 bytes that key the hash, so that no writer can craft collisions; zeros by default.

        Raises:
            ValueError: The secret has another length.
        """

    def insert(self, key: bytes | str, version: str) -> None:
        """Adds an entry. Adding the same one twice takes it out again: the tree does not know its entries.

        Raises:
            ValueError: `version` is not a version.
        """

    def remove(self, key: bytes | str, version: str) -> None:
        """Takes out an entry that was inserted.

        Raises:
            ValueError: `version` is not a version.
        """

    def root(self) -> bytes:
        """The 16 bytes that stand for everything; zeros for nothing."""

    def branch(self, index: int) -> bytes:
        """The 16 bytes of a branch.

        Args:
            index: 0 to 127.

        Raises:
            IndexError: There is no such branch.
        """

    def slot(self, index: int) -> bytes:
        """The 16 bytes of a slot.

        Args:
            index: 0 to 16383.

        Raises:
            IndexError: There is no such slot.
        """

    def diff(self, other: MerkleTree) -> list[int]:
        """The slots in which two trees differ, ascending."""

    def copy(self) -> MerkleTree:
        """A tree of the same entries that changes on its own."""

    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...

@final
class Engine:
    """A store and the threads that serve it. File-like: `fileno`, then `poll_events` whenever it is readable.

    Life: made, `start`, any number of `listen`, `drain`, `stop`. The methods on keys may be called from any
    thread at any time before `stop`; they take about a microsecond and do not hold the GIL while they wait
    for a lock. Once a thread of it has panicked they raise NodeFailedError: what it held may be half changed.
    """

    def __new__(cls, options: dict[str, object]) -> Engine:
        """Allocates the store; starts nothing.

        Args:
            options: As `turbopump.config.engine_options` makes them: `name`, `reactors`, `max_memory` (bytes,
                0 for no limit), `password` (text or None), `guests` (`uids` and `gids`, each a list or
                None for everybody), `limits` (`max_key`, `max_value`, `max_line`, `max_request`, `max_args`,
                `max_connections`, `max_keys`, `max_output`, `max_events`, `max_waits`, `max_wait_ms`,
                `max_relayed`, `max_stall_ms`,
                `max_watches`, `max_changes`, `max_change_bytes`, `max_siblings`,
                `max_sibling_bytes`, `max_sibling_age_ms`, `max_once_bytes`,
                `max_once_age_ms`, `read_buffer`) and `keyspaces`
                (`prefix`, `writes`, `ttl_ms`, `max_memory` each).

        Raises:
            ValueError: An option is unknown, missing, of another type or beyond what its integer holds; names
                it. What figures make sense is for `turbopump.config` to say: here 0 of anything is taken.
            OSError: The system refuses an epoll, an eventfd or randomness.
        """

    def start(self) -> None:
        """Starts the reactor threads.

        Raises:
            OSError: The system refuses a thread.
            RuntimeError: It was started before.
        """

    def listen(self, fd: int, *, tcp: bool) -> None:
        """Serves a listening socket. The engine takes a duplicate: the caller closes its own.

        Args:
            fd: A bound, listening stream socket.
            tcp: Whether it is TCP, where clients give the password; on a unix socket the guest list decides.

        Raises:
            OSError: The descriptor cannot be duplicated or watched.
        """

    def fileno(self) -> int:
        """A descriptor that is readable while events wait."""

    def poll_events(self) -> list[_Event]:
        """All waiting events, oldest first. Never blocks."""

    def reply(self, ask: int, answer: _Reply) -> None:
        """Answers a cold command, in its place among the replies of its connection.

        Args:
            ask: Of the `Asked` event. Unknown ones, of clients that have gone, are ignored.
            answer: A `Refusal` is an error; None, True and False are the protocol's own words for them.

        Raises:
            TypeError: The answer is of another type.
        """

    def drain(self, deadline_ms: int) -> None:
        """Accepts nothing new and answers what was accepted; ends with a `Drained` event. Returns at once.

        Args:
            deadline_ms: Connections with unanswered commands are closed after so many milliseconds.
        """

    def stop(self) -> None:
        """Closes every connection and joins the threads. May be called again, and without `drain`."""

    def get(self, key: bytes) -> bytes | None:
        """The value under a key, None if there is none.

        Raises:
            RequestError: The key is empty or too long.
        """

    def read(self, key: bytes) -> Entry | None:
        """The value under a key with its version and expiry, None if there is none.

        Raises:
            RequestError: The key is empty or too long.
        """

    def put(
        self,
        key: bytes,
        value: bytes,
        ttl_ms: int | None = None,
        condition: Literal["absent", "present"] | None = None,
        if_version: str | None = None,
    ) -> str:
        """Writes a value.

        Args:
            key: 1 to `max_key` bytes.
            value: At most `max_value` bytes.
            ttl_ms: Lifetime; None for the keyspace's.
            condition: Write only if the key has no value (`absent`), or only if it has one (`present`).
            if_version: Write only if the key's value is of this version.

        Returns:
            The version written.

        Raises:
            RequestError: An argument is out of range; nothing changed.
            ConflictError: The condition does not hold, or the keyspace is immutable; nothing changed.
            NoSpaceError: The node or the keyspace is full; nothing changed.
        """

    def delete(self, key: bytes, if_version: str | None = None) -> str | None:
        """Deletes a key.

        Returns:
            The version of the deletion, None if there was nothing to delete.

        Raises:
            RequestError: An argument is out of range; nothing changed.
            ConflictError: The value is of another version than `if_version`; nothing changed.
        """

    def exists(self, key: bytes) -> bool:
        """Whether there is a value under a key.

        Raises:
            RequestError: The key is empty or too long.
        """

    def wait(self, key: bytes) -> str | int:
        """The version of the value under a key; if there is none, the number of a wait for it.

        The wait is over with an `Appeared` event of this number, or with `forget`. The value may have gone
        again when the event is read.

        Raises:
            RequestError: The key is empty or too long.
            UnavailableError: As many wait as `max_waits`.
        """

    def forget(self, key: bytes, wait: int) -> None:
        """Ends a wait, if it is not over already."""

    def is_here(self, key: bytes, write: bool) -> bool:
        """Whether this node alone can do what is asked of a key: it keeps it, nobody else need know first.

        Then the methods above do it; else `execute` does.
        """

    def has_all(self) -> bool:
        """Whether this node has every key; else `scan` does not see all there are."""

    def execute(self, request: bytes) -> int:
        """Has a request run as if a client had sent it, here or where its key is kept.

        Args:
            request: In the pipe protocol, as `ClientCodec.encode` writes it.

        Returns:
            The number under which a `Replied` event brings the reply.

        Raises:
            RuntimeError: The node is alone, and asks nobody.
        """

    def sync(self) -> None:
        """Compares with the other nodes now, rather than when it is time to."""

    def watch(self, prefix: bytes = ..., kinds: str | None = None, since: int | None = None) -> Watch:
        """Begins to watch what changes; a `Stirred` event tells to read on.

        Args:
            prefix: What the keys begin with.
            kinds: Some of written, arrived, healed, deleted, expired and lost, with commas between; None for
                all.
            since: A revision, to go on behind it; None for from now on.

        Raises:
            RequestError: There is no such kind.
            UnavailableError: `gone`: some of what changed since is not kept. `busy`: as many watch as
                `max_watches`.
        """

    def set_rules(self, rules: list[tuple[bytes, str]]) -> None:
        """Has a `Changed` event tell of each change that one of these rules takes, instead of those before.

        What finds `max_events` of them waiting is only counted, in the stats as `changes_dropped`.

        Args:
            rules: A prefix and kinds each, as for `watch`.

        Raises:
            RequestError: There is no such kind.
        """

    def scan(self, cursor: int, limit: int, prefix: bytes = ...) -> tuple[int, list[tuple[bytes, int]]]:
        """Some of the keys and the sizes of their values.

        A key that is there from the first call to the last is returned at least once, whatever is written
        meanwhile; one that comes or goes in between may be.

        Args:
            cursor: 0 to begin, then what the last call returned.
            limit: About how many keys to look at; fewer may be returned, even none before the end.
            prefix: Only keys that begin so.

        Returns:
            The next cursor, 0 at the end, and pairs of key and bytes of value.
        """

    def clear(self) -> int:
        """Deletes every key. Returns how many there were."""

    def merkle(self) -> MerkleTree:
        """The digest tree of what the store holds now."""

    def stats(self) -> dict[str, object]:
        """Counters since the start and gauges of now, by name.

        Returns:
            Gauges: `keys`, `memory`, `max_memory` (bytes), `expiring`, `tombstones`, `connections`,
            `siblings`, `watches`, and `behind`: 1 as long as a node that came back blank has not been found
            to hold what its peers hold. Counters: `expired`, `hits`, `misses`, `writes`, `deletes`,
            `commands`, `refusals`, `accepted`, `turned_away`, `changes_dropped`. And `keyspaces`: of each
            its `prefix`, `keys`, `memory` and `max_memory`.
        """

    def clients(self) -> list[dict[str, object]]:
        """The client connections.

        Returns:
            For each: `id`, `fd`, `name`, `library`, `library_version`, `protocol`, `tcp`, `age_ms`, `idle_ms`
            and `unsent` (bytes of replies that it has not read).
        """

    def kill(self, id: int) -> bool:  # noqa: A002 - as `clients` calls it
        """Ends a client's connection. Returns whether there was one of this id."""

@final
class Entry:
    """A value in time. Frozen."""

    __match_args__ = ("value", "version", "expires_ms")
    @property
    def value(self) -> bytes:
        """What was written."""

    @property
    def version(self) -> str:
        """Of the write."""

    @property
    def expires_ms(self) -> int | None:
        """Unix milliseconds of its end, None for never."""

@final
class Asked:
    """A client sent a cold command; `Engine.reply(ask, ...)` answers it. Its connection waits until then."""

    __match_args__ = ("ask", "command", "args")
    @property
    def ask(self) -> int:
        """Names the question."""

    @property
    def command(self) -> str:
        """In lower case."""

    @property
    def args(self) -> list[bytes]:
        """What followed the command."""

@final
class Logged:
    """A thread of the engine has something to say."""

    __match_args__ = ("level", "event", "fields")
    @property
    def level(self) -> str:
        """`debug`, `info`, `warning` or `error`."""

    @property
    def event(self) -> str:
        """What happened, in a few constant words."""

    @property
    def fields(self) -> dict[str, str]:
        """To whom, how much."""

@final
class Failed:
    """A thread of the engine panicked. The engine is poisoned: it serves nobody any more; `stop` it."""

    __match_args__ = ("message",)
    @property
    def message(self) -> str:
        """What the panic said."""

@final
class Appeared:
    """The key of a wait has a value now, or had one."""

    __match_args__ = ("wait",)
    @property
    def wait(self) -> int:
        """What `Engine.wait` returned."""

@final
class Replied:
    """A call of `Engine.execute` is answered."""

    __match_args__ = ("call", "reply")
    @property
    def call(self) -> int:
        """What `Engine.execute` returned."""

    @property
    def reply(self) -> bytes:
        """The reply, for `ClientCodec`."""

@final
class Stirred:
    """There are changes for those who watch."""

@final
class Changed:
    """A key has changed."""

    __match_args__ = ("revision", "kind", "key", "version", "size")
    @property
    def revision(self) -> int:
        """Its place among all changes on the node: higher than those before, also after a restart."""

    @property
    def kind(self) -> str:
        """What happened.

        `written` here, `arrived` from another node, `healed` (came later, as it was missing), `deleted`,
        `expired`, or `lost` (gave way to a write that did not know it).
        """

    @property
    def key(self) -> bytes:
        """The key."""

    @property
    def version(self) -> str:
        """The version that was written, came, is over or is lost."""

    @property
    def size(self) -> int:
        """Bytes of its value; 0 of a delete."""

@final
class Watch:
    """A place among the changes on a node."""

    @property
    def revision(self) -> int:
        """All changes up to this one have been looked at."""

    def read(self, limit: int) -> tuple[list[Changed], bool]:
        """Looks at the next `limit` changes: those that are wanted, and whether there are more.

        Raises:
            UnavailableError: `gone`: it is too far behind, and some are not kept any more.
        """

    def close(self) -> None:
        """Ends the watching: there is nothing to read any more."""

@final
class Drained:
    """The drain is over: nothing is being served."""

    __match_args__ = ("answered", "aborted")
    @property
    def answered(self) -> int:
        """Connections that got every answer they were owed."""

    @property
    def aborted(self) -> int:
        """Connections that the deadline cut off."""

@final
class Refusal:
    """An error to answer a cold command with."""

    __match_args__ = ("code", "message")
    def __new__(cls, code: str, message: str) -> Refusal:
        """A refusal.

        Args:
            code: The word a program matches on, such as `bad_param`.
            message: One line: what happened and what to do.
        """

    @property
    def code(self) -> str:
        """The word a program matches on."""

    @property
    def message(self) -> str:
        """What happened and what to do."""

@final
class ClientCodec:
    """The client's half of the pipe protocol: bytes to send from commands, answers from bytes received.

    Does no I/O. Answers come in the order of the requests and carry their ids.
    """

    def __new__(cls, max_reply: int = ...) -> ClientCodec:
        """A codec for one connection.

        Args:
            max_reply: Longest body of a reply, in bytes, that is believed.
        """

    def hello(self, password: str | None = None) -> bytes:
        """What to send first: asks to keep the connection and to frame replies. Answered as id 0."""

    def request(
        self, command: str, params: dict[str, str | bytes | int], value: bytes | None = None
    ) -> tuple[int, bytes]:
        """A command, ready to send.

        Args:
            command: Its name.
            params: Any bytes in names and values; text stands for its UTF-8.
            value: What follows the second pipe, for commands that take a value. To send it apart, leave it
                out, give its `length` as a parameter, and send it before the newline at the request's end.

        Returns:
            The id that its answer will carry, and the bytes to send.

        Raises:
            ValueError: The command or a parameter's name cannot be a word of the protocol.
        """

    def feed(self, data: bytes) -> list[Answer]:
        """The answers that `data` completes, oldest first. Pieces may be cut anywhere.

        Raises:
            ProtocolError: The server broke the framing; nothing more can be read from this connection.
        """

@final
class Answer:
    """A framed reply. Frozen."""

    __match_args__ = ("id", "code", "params", "body")
    @property
    def id(self) -> int:
        """Of the request."""

    @property
    def code(self) -> str | None:
        """The error's word, None for success."""

    @property
    def params(self) -> dict[str, str]:
        """What the status line says, decoded."""

    @property
    def body(self) -> bytes:
        """A value, a listing, or the text of an error."""

class TurbopumpError(Exception):
    """Everything that goes wrong here. `turbopump.errors` draws the tree."""

    code: str

class RequestError(TurbopumpError):
    """The request was wrong. Nothing changed."""

class ConflictError(TurbopumpError):
    """The condition of a write does not hold. Nothing changed."""

class NotFoundError(TurbopumpError):
    """There is nothing under the key."""

class NoSpaceError(TurbopumpError):
    """The node or the keyspace is full. Nothing changed; reads and deletes go on."""

class NodeFailedError(TurbopumpError):
    """A thread of this process's engine panicked: a defect of turbopump, never of a client.

    The node has stopped, and what it held in memory is gone.
    """

class UnavailableError(TurbopumpError):
    """The node could not answer. The message says what is known of a write."""

class DeniedError(TurbopumpError):
    """The client may not do this. Nothing changed."""

class ProtocolError(TurbopumpError):
    """The peer broke the protocol. The connection is gone; the fate of what was in flight is unknown."""
