"""What clients may take, each limit with its default and its reason."""

from pydantic import Field

from turbopump.config.section import Section, Size


class Limits(Section):
    """What clients may take. At a limit they get a typed error, and nothing acknowledged is lost."""

    max_key: int = Field(
        default=4096,
        ge=1,
        le=65535,
        description="Bytes of a key. Keys live in memory on every replica and travel in every exchange.",
    )
    max_value: Size = Field(
        default=1 << 30,
        ge=1,
        le=1 << 40,
        description="Bytes of a value. Each is held in memory whole, and once more while it is replaced.",
    )
    max_line: Size = Field(
        default=1 << 20,
        ge=1024,
        le=1 << 30,
        description="Bytes of a command line, and of a value sent without its length: both are kept whole.",
    )
    max_request: Size = Field(
        default=1 << 24,
        ge=1024,
        le=1 << 32,
        description="Bytes of one command, large values aside: it is kept until it is whole.",
    )
    max_args: int = Field(
        default=1 << 20,
        ge=16,
        le=1 << 24,
        description="Arguments of one Redis command; Redis's own limit, which large MSETs rely on.",
    )
    max_connections: int = Field(
        default=16_384,
        ge=1,
        le=1 << 20,
        description="Client connections. Each takes a descriptor: the hard `ulimit -n` must be higher.",
    )
    max_keys: int = Field(
        default=1_000_000,
        ge=1,
        le=1 << 32,
        description="Keys that one Redis KEYS may answer. Its reply is made whole; SCAN has no such limit.",
    )
    max_output: Size = Field(
        default=1 << 20,
        ge=4096,
        le=1 << 30,
        description="Bytes of replies a client may leave unread before its next command waits.",
    )
    max_relayed: Size = Field(
        default=1 << 22,
        ge=65_536,
        le=1 << 30,
        description="Bytes of a large value that a node holds between a client and the node that keeps it: "
        "what is on its way at full speed. 4 MiB is 1 Gbit/s over 32 ms.",
    )
    max_stall: float = Field(
        default=600,
        gt=0,
        le=10**7,
        description="Seconds that such a value may stand still because its client does. It goes on by a "
        "quarter of `max_relayed` at a time: below 2 kB/s nobody is really reading.",
    )
    max_events: int = Field(
        default=10_000,
        ge=16,
        le=1 << 20,
        description="Events that may wait for Python. Then logs are dropped, and cold commands refused.",
    )
    max_waits: int = Field(
        default=10_000,
        ge=0,
        le=1 << 20,
        description="Clients that may wait for a key to appear; each is looked at when its key is written.",
    )
    max_wait: float = Field(
        default=3600,
        gt=0,
        le=10**7,
        description="Seconds that a client may wait for a key: one that vanished is not kept for ever.",
    )
    max_watches: int = Field(
        default=1000,
        ge=0,
        le=1 << 16,
        description="Clients that may watch what changes: each looks at every change.",
    )
    max_changes: int = Field(
        default=65_536,
        ge=1,
        le=1 << 24,
        description="Changes that one who watches may be behind: some tenths of a second of writes at full "
        "speed. Nothing is kept while nobody watches.",
    )
    max_change_bytes: Size = Field(
        default=1 << 24,
        ge=4096,
        le=1 << 32,
        description="Bytes that these changes may take: their keys, not their values.",
    )
    max_siblings: int = Field(
        default=8,
        ge=0,
        le=1000,
        description="Values of one key that lost to a write that did not know them, kept to be looked at.",
    )
    max_sibling_bytes: Size = Field(
        default=1 << 24,
        ge=0,
        le=1 << 40,
        description="Bytes that such values of all keys may take; the oldest go first.",
    )
    max_sibling_age: float = Field(
        default=86_400,
        gt=0,
        le=10**8,
        description="Seconds that such a value is kept: a day, for somebody to notice.",
    )
    max_once_bytes: Size = Field(
        default=1 << 24,
        ge=0,
        le=1 << 40,
        description="Bytes that the names of writes with `once` may take, some 80,000 of them; the oldest go "
        "first.",
    )
    max_once_age: float = Field(
        default=600,
        gt=0,
        le=10**8,
        description="Seconds that such a name is known: longer than any client goes on trying.",
    )
    read_buffer: Size = Field(
        default=1 << 16,
        ge=4096,
        le=1 << 24,
        description="Bytes each reactor reads at once. 64 KiB holds a deep pipeline and stays in the cache.",
    )
