"""RESP, side by side with Redis: the same commands to both, the same bytes back, errors and their texts too.

Beyond the list of the issue there is nothing to compare: of a command's reply, only what a client acts on.
"""

import random
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import hiredis
import pytest

from conftest import Served
from wire import Wire, command, until

SCRIPTS = {
    "ping and echo": """
        PING; PING hi; PING a b; ping; PiNg ''; ECHO x; ECHO; ECHO a b; ECHO ''
    """,
    "get and set": r"""
        GET a; SET a 1; GET a; SET; SET a; GET; GET a b; SET a b c; SET a ''; GET a; STRLEN a; STRLEN none
        STRLEN; SET b "\x00\r\n\xff"; GET b; STRLEN b; SET '' empty; GET ''; DEL ''; sEt a 1; gEt a
    """,
    "set only if": """
        SET a 1 XX; GET a; SET a 1 NX; SET a 2 NX; SET a 3 XX; GET a; SET a 4 NX XX; SET a 4 XX NX
        SET a 1 nx Nx; SET a b FOO; SET a b NX FOO; SET a b NX EX; GET a
    """,
    "set and get the old": """
        SET a 5 GET; SET a 6 GET; SET a 6 NX GET; SET n 6 NX GET; SET m 6 XX GET; GET m; SET a 7 XX GET
        set a 8 Xx gEt; GET a; SET a 9 GET GET; SET a x ex 10 nx get; GETSET a 1; GETSET new 2; GETSET a
        GET new
    """,
    "set with a lifetime": """
        SET a 8 EX 100; TTL a; SET a 9 KEEPTTL; TTL a; GET a; SET a 9; TTL a; SET a 9 PX 100000; TTL a
        SET a 1 EXAT 33177117420; EXPIRETIME a; PEXPIRETIME a; SET a 1 PXAT 33177117420123; PEXPIRETIME a
        SET a 1 EX 10 PX 10; SET a 1 KEEPTTL EX 10; SET a 1 EX 10 KEEPTTL; SET a 1 EX; SET a 1 EX abc
        SET a 1 EX 0; SET a 1 EX -1; SET a 1 PX 0; SET a 1 EXAT 0; SET a 1 PXAT -5
        SET a 1 EX 9223372036854775807; SET a 1 PX 9223372036854775807; SET a 1 EX 99999999999999999999
        SET a 1 EX 1.5; SET a 1 EX ' 1'; SET a 1 EX 10 10; GET a; SET a 1 EXAT 1; GET a; EXISTS a
        SET a 1 PXAT 1; GET a; SET a 1 KEEPTTL KEEPTTL
    """,
    "setex and its kin": """
        SETEX c 100 v; TTL c; GET c; SETEX c 0 v; SETEX c x v; SETEX c -1 v; SETEX c 1; PSETEX c 100000 v
        TTL c; PSETEX c 0 v; PSETEX c x v; GETSET c w; TTL c; SETNX c 3; SETNX d 3; SETNX d; GET d
    """,
    "getdel and getex": """
        GETDEL a; SET a 1; GETDEL a; GETDEL a; GETDEL; GETDEL a b; GETEX a; SET a 1; GETEX a; TTL a
        GETEX a EX 100; TTL a; GETEX a; TTL a; GETEX a PERSIST; TTL a; GETEX a PX 100000; TTL a
        GETEX a EXAT 33177117420; EXPIRETIME a; GETEX a PXAT 33177117420000; PEXPIRETIME a; GETEX a EX
        GETEX a EX 0; GETEX a EX x; GETEX a FOO; GETEX a PERSIST EX 1; GETEX a EX 1 PERSIST; GETEX
        GETEX none EX 100; GETEX none EX 0; GETEX a KEEPTTL; GETEX a NX; GETEX a EXAT 1; EXISTS a
    """,
    "several keys": """
        MGET a b; MSET a 1 b 2; MGET a b none a; MGET; MSET; MSET a; MSET a 1 b; MSET a 1 a 2; GET a
        EXISTS a b c a; EXISTS; TOUCH a b none; DEL a b none a; UNLINK c c; UNLINK; DEL; MSET a 1 b 2
        UNLINK a b; EXISTS a b
    """,
    "types": """
        SET a 1; TYPE a; TYPE none; TYPE; TYPE a b; OBJECT ENCODING a; SET a abc; OBJECT ENCODING a
        SET a 9223372036854775807; OBJECT ENCODING a; SET a 9223372036854775808; OBJECT ENCODING a
        OBJECT REFCOUNT a; OBJECT ENCODING none; OBJECT ENCODING; OBJECT; OBJECT FOO; OBJECT FOO a
        object encoding a; MEMORY USAGE none; MEMORY; MEMORY USAGE; MEMORY FOO
    """,
    "append": """
        APPEND a x; APPEND a yz; GET a; APPEND a ''; APPEND a; APPEND; SET a 1 EX 100; APPEND a 2; TTL a
        GET a; STRLEN a; STRLEN a b
    """,
    "integers": """
        INCR a; INCR a; GET a; INCRBY a 10; DECR a; DECRBY a 20; INCRBY a -3; INCR; INCR a b; INCRBY a
        INCRBY a x; INCRBY a 1.5; INCRBY a ''; DECRBY a x; DECRBY a; DECR; SET s abc; INCR s; SET s '1 '
        INCR s; SET s ' 1'; INCR s; SET s 01; INCR s; SET s +1; INCR s; SET s -0; INCR s; SET s ''; INCR s
        SET s 9223372036854775807; INCR s; INCRBY s 1; DECR s; SET s -9223372036854775808; DECR s
        DECRBY s 1; DECRBY a -9223372036854775808; INCRBY a -9223372036854775808; SET s 9223372036854775808
        INCR s; SET s 5 EX 100; INCR s; TTL s; GET s
    """,
    "lifetimes told": """
        TTL a; PTTL a; EXPIRETIME a; PEXPIRETIME a; SET a 1; TTL a; PTTL a; EXPIRETIME a; PEXPIRETIME a; TTL
        PTTL; PERSIST a; PERSIST none; PERSIST; EXPIRE a 100; TTL a; PERSIST a; TTL a
        SET a 1 PXAT 33177117420123; EXPIRETIME a; SET a 1 PXAT 33177117420500; EXPIRETIME a
        SET a 1 PXAT 33177117420501; EXPIRETIME a
    """,
    "lifetimes set": """
        EXPIRE none 100; EXPIRE a; SET a 1; EXPIRE a x; EXPIRE a 100 FOO; EXPIRE a 100 NX; EXPIRE a 100 NX
        TTL a; EXPIRE a 200 GT; TTL a; EXPIRE a 100 GT; EXPIRE a 100 LT; TTL a; EXPIRE a 200 LT
        EXPIRE a 90 XX; TTL a; PERSIST a; EXPIRE a 90 XX; EXPIRE a 100 GT; EXPIRE a 100 LT; TTL a
        PEXPIRE a 90000; TTL a; EXPIREAT a 33177117420; EXPIRETIME a; PEXPIREAT a 33177117420123
        PEXPIRETIME a; expire a x; EXPIRE a 9223372036854775807; PEXPIRE a 9223372036854775807
        EXPIREAT a 9223372036854775807; EXPIRE a 0; GET a; SET a 1; EXPIRE a -1; EXISTS a; SET a 1
        EXPIREAT a 1; EXISTS a; SET a 1; PEXPIREAT a 1; GET a; SET a 1; PEXPIRE a 0; GET a; EXPIRE
        EXPIREAT a; PEXPIRE a; PEXPIREAT a
    """,
    "lifetimes set under two conditions": """
        SET a 1; EXPIRE a 100; EXPIRE a 90 XX LT; TTL a; EXPIRE a 200 XX GT; TTL a; EXPIRE a 100 NX XX
        EXPIRE a 100 GT LT; EXPIRE a 100 NX GT; EXPIRE a 100 NX LT; EXPIRE a 100 LT FOO; TTL a
    """,
    "databases": """
        SELECT 0; SELECT -1; SELECT 16; SELECT x; SELECT; DBSIZE; SET a 1; DBSIZE; DBSIZE x; FLUSHDB; DBSIZE
        EXISTS a; FLUSHDB ASYNC; FLUSHDB SYNC; FLUSHALL
    """,
    "what was over when it was written": "SET a 1 EXAT 1; GET a; SET a 1; SET a 2 PXAT 1; GET a; TTL a",
    "flushes that are refused": "SET a 1; FLUSHDB FOO; FLUSHDB ASYNC SYNC; FLUSHALL FOO; GET a",
    "scan and keys": """
        SCAN 0; SCAN; SCAN x; SCAN 0 FOO; SCAN 0 MATCH; SCAN 0 COUNT x; SCAN 0 COUNT 0; SCAN 0 COUNT -1
        SCAN 0 COUNT; SCAN 0 TYPE; SET a 1; SCAN 0 COUNT 100; SCAN 0 MATCH a* COUNT 100
        SCAN 0 MATCH b* COUNT 100; SCAN 0 COUNT 100 MATCH [a-c]; SCAN 0 TYPE string COUNT 100
        SCAN 0 TYPE list COUNT 100; KEYS; KEYS *; KEYS b*; KEYS ?; KEYS '??'; KEYS [^a]; KEYS [b-]; KEYS a b
        RANDOMKEY; RANDOMKEY x; DEL a; RANDOMKEY; KEYS *
    """,
    "the connection": """
        CLIENT; CLIENT GETNAME; CLIENT SETNAME me; CLIENT GETNAME; CLIENT SETNAME 'a b'; CLIENT SETNAME ''
        CLIENT GETNAME; CLIENT SETNAME; CLIENT FOO; CLIENT NO-EVICT on; CLIENT NO-EVICT off
        CLIENT NO-EVICT maybe; CLIENT ID x; CLIENT GETNAME x; CLIENT KILL ID 99999999; CLIENT KILL ID x
        CLIENT KILL; CLIENT KILL 1.2.3.4:5; CLIENT LIST FOO; CLIENT LIST TYPE foo; RESET x
    """,
    "hello and auth": """
        HELLO 1; HELLO 4; HELLO x; HELLO 3 FOO; HELLO 2 SETNAME; HELLO 2 AUTH x; AUTH x; AUTH; AUTH a b c
        AUTH default x; RESET; PING; GET a
    """,
    "what there is not": """
        FOO; FOO a b; foo a b; GETT a; ''; '' x; FOO a b c d e f g h i j k l m n o p
        FOO "a\\r\\nb"; CONFIG; CONFIG FOO; CONFIG GET; CONFIG GET nothing-like-this; COMMAND FOO
        COMMAND COUNT x; COMMAND INFO foo; COMMAND DOCS foo; CONFIG HELLO x
    """,
}

# What is sent, and what is not RESP in it. The connection is half-closed behind each.
RAW = [
    b"*1\r\n$4\r\nPING\r\n",
    b"*-1\r\nPING\r\n",
    b"*0\r\nPING\r\n",
    b"*-5\r\nPING\r\n",
    b"PING\r\n",
    b"PING\n",
    b"PING   x  \r\n",
    b"PING\tx\r\n",
    b'PING "a b"\r\nPING \'a b\'\r\nPING ""\r\n',
    b'PING "\\x00\\xff\\n\\r\\t\\a\\b\\"\\\\\\q\\xZZ"\r\n',
    b"PING 'a\\'b\\n\"'\r\n",
    b'PING a"b"\r\n',
    b"PING a'b c'\r\n",
    b"PING a'b c'd\r\n",
    b'PING "a\r\n',
    b"PING 'a\r\n",
    b'PING "a"b\r\n',
    b"PING 'a'b\r\n",
    b"GET a\r\nset a 1\r\nget a\r\n",
    b'SET a "\\xff\\x0a"\r\nGET a\r\n',
    b"*1\r\n:1\r\n",
    b"*1\r\nPING\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$abc\r\n",
    b"*1\r\n$\r\n",
    b"*1\r\n$4 \r\nPING\r\n",
    b"*1\r\n$+4\r\nPING\r\n",
    b"*2\r\n$3\r\nGET\r\n$-5\r\n",
    b"*1\r\n$9223372036854775807\r\n",
    b"*1\r\n$99999999999999999999\r\n",
    b"*abc\r\n",
    b"*\r\n",
    b"*+1\r\n$4\r\nPING\r\n",
    b"*99999999999999999999\r\n",
    b"*1\r\n$0\r\n\r\n",
    b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n",
    b"*2\r\n$4\r\nECHO\r\n$70000\r\n" + b"y" * 70_000 + b"\r\n",
    b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n",
    b"*3\r\n$3\r\nSET",
    b"PING " + b"x" * 60_000 + b"\r\n",
    b"PING " + b"x" * 2_000_000,
]


@pytest.fixture(scope="module")
def redis() -> Iterator[str]:
    """The path of a real Redis's socket."""
    program = shutil.which("redis-server")
    assert program, "redis-server is not here to compare with: apt-get install redis-server"
    folder = Path(tempfile.mkdtemp(prefix="tp-", dir="/tmp"))
    path = folder / "r"
    arguments = [
        "--port",
        "0",
        "--unixsocket",
        str(path),
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        str(folder),
    ]
    with subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL) as process:
        try:
            until(lambda: process.poll() is not None or path.exists(), "redis-server to listen")
            with Wire(str(path)) as wire:
                assert wire.ask("PING") == b"+PONG\r\n"
            yield str(path)
        finally:
            process.kill()
    shutil.rmtree(folder)


def words(script: str) -> list[list[bytes]]:
    """The commands of a script: one between two semicolons or line ends, quoted as in a shell."""
    lines = script.replace(";", "\n").splitlines()
    split = (shlex.split(line) for line in lines if line.strip())
    return [[word.encode().decode("unicode_escape").encode("latin-1") for word in line] for line in split]


def answers(path: str, commands: list[list[bytes]], protocol: int) -> list[bytes]:
    """The replies to commands on an empty server."""
    with Wire(path) as wire:
        assert wire.ask("HELLO", protocol)[:1] in b"*%"
        assert wire.ask("FLUSHALL") == b"+OK\r\n"
        return [wire.ask(*command) for command in commands]


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_redis_says_the_same(node: Served, redis: str, script: str, protocol: int) -> None:
    """Byte for byte."""
    commands = words(script)
    ours, theirs = answers(node.socket, commands, protocol), answers(redis, commands, protocol)

    different = [
        f"{b' '.join(command).decode(errors='replace')}: {our!r}, Redis {their!r}"
        for command, our, their in zip(commands, ours, theirs, strict=True)
        if our != their
    ]
    assert different == []


@pytest.mark.parametrize("size", [32_767, 32_768, 1 << 20, (1 << 20) + 1, 3_000_000])
def test_redis_says_the_same_of_large_arguments(node: Served, redis: str, size: int) -> None:
    """Around the sizes from which they are kept in another way."""
    large = random.Random(size).randbytes(size)
    commands = [
        [b"ECHO", large],
        [b"PING", large],
        [b"SET", b"a", large],
        [b"GET", b"a"],
        [b"GETSET", b"a", large[1:]],
        [b"APPEND", b"a", large],
        [b"STRLEN", b"a"],
        [b"GETDEL", b"a"],
        [b"SETNX", b"a", large],
        [b"SETEX", b"b", b"100", large],
        [b"GETEX", b"b", b"PERSIST"],
        [b"MSET", b"c", large, b"d", large[:40_000]],
        [b"MGET", b"c", b"none", b"d", b"c"],
        [b"SET", b"c", b"1", b"GET"],
        [b"INCR", b"b"],
        [b"EXPIRE", b"b", b"100"],
        [b"GET", b"b"],
    ]

    for ours, theirs, words in zip(
        *(answers(path, commands, 2) for path in (node.socket, redis)), commands, strict=True
    ):
        assert ours == theirs, words[0]


def test_redis_says_the_same_to_very_many_arguments(node: Served, redis: str) -> None:
    """A hundred thousand keys in one command."""
    names = [b"k%d" % number for number in range(100_000)]
    pairs = [word for name in names for word in (name, b"v")]
    commands = [
        [b"MSET", *pairs],
        [b"DBSIZE"],
        [b"MGET", *names],
        [b"EXISTS", *names],
        [b"DEL", *names],
        [b"DBSIZE"],
    ]

    assert answers(node.socket, commands, 3) == answers(redis, commands, 3)


@pytest.mark.parametrize("seed", range(3))
def test_redis_finds_the_same_by_any_pattern(node: Served, redis: str, seed: int) -> None:
    """Whatever the pattern, its classes closed or not."""
    draw, letters = random.Random(seed), [b"%c" % byte for byte in b"abc\x80\xff][-^\\*?"]
    keys = {b"%c" % byte for byte in range(256)} - {b"\r", b"\n"}
    keys |= {b"".join(draw.choices(letters, k=draw.randint(2, 4))) for _ in range(300)}
    patterns = [b"".join(draw.choices(letters, k=draw.randint(1, 7))) for _ in range(500)]
    commands = [[b"MSET", *(word for key in keys for word in (key, b"v"))]]
    commands += [[b"KEYS", pattern] for pattern in patterns]

    def found(path: str) -> list[list[bytes]]:
        return [sorted(answer.split(b"\r\n")[2::2]) for answer in answers(path, commands, 2)]

    for ours, theirs, words in zip(found(node.socket), found(redis), commands, strict=True):
        assert ours == theirs, words


@pytest.mark.parametrize("raw", RAW, ids=lambda raw: repr(raw[:30]))
def test_what_is_not_resp_is_answered_as_redis_does(node: Served, redis: str, raw: bytes) -> None:
    """With its text, and the connection ended where the next command's beginning is unknown."""
    ours, theirs = (answered(path, raw) for path in (node.socket, redis))

    assert ours == theirs


def answered(path: str, raw: bytes) -> bytes:
    """All that comes back before the other side closes, or resets what it will not read."""
    received = b""
    with Wire(path) as wire:
        wire.ask("FLUSHALL")
        with suppress(BrokenPipeError, ConnectionResetError):
            wire.send(raw).half_close()
        with suppress(ConnectionResetError):
            while piece := wire.socket.recv(1 << 16):
                received += piece
    return received


PROMISED = """
    hello auth ping echo set get getdel getex mget mset del unlink exists strlen append incr decr incrby
    decrby ttl pttl expire expireat pexpire pexpireat persist type scan keys dbsize randomkey flushdb select
    client config info command memory object quit reset shutdown
"""


def parsed(path: str, *words: str) -> object:
    """A reply in RESP3, as hiredis understands it."""
    reader = hiredis.Reader()
    with Wire(path) as wire:
        wire.ask("HELLO", 3)
        reader.feed(wire.ask(*words))
    return reader.gets()


@pytest.mark.parametrize("name", PROMISED.split())
def test_redis_describes_the_command_in_the_same_way(node: Served, redis: str, name: str) -> None:
    """Its name, how many arguments it takes, and where its keys are: clients route by it."""
    [ours], [theirs] = (as_list(parsed(path, "COMMAND", "INFO", name)) for path in (node.socket, redis))

    assert as_list(ours)[:2] + as_list(ours)[3:6] == as_list(theirs)[:2] + as_list(theirs)[3:6]
    if name not in {"client", "config", "object", "memory"}:  # Redis has some in their subcommands
        assert ("write" in names(ours)) == ("write" in names(theirs))


def as_list(reply: object) -> list[object]:
    """A reply that is an array."""
    assert isinstance(reply, list)
    return reply


def names(described: object) -> set[str]:
    """The flags of a command."""
    return {
        flag.decode() if isinstance(flag, bytes) else str(flag) for flag in iterated(as_list(described)[2])
    }


def iterated(reply: object) -> list[object]:
    """A reply that is an array or a set."""
    assert isinstance(reply, list | set | frozenset)
    return list(reply)


def test_the_command_table_is_told_in_each_way(node: Served) -> None:
    """COMMAND, COUNT, LIST, INFO and DOCS agree."""
    listed = as_list(parsed(node.socket, "COMMAND", "LIST"))

    assert parsed(node.socket, "COMMAND", "COUNT") == len(listed)
    assert [as_list(row)[0] for row in as_list(parsed(node.socket, "COMMAND"))] == listed
    assert {name.encode() for name in PROMISED.split()} <= set(listed)
    documented = parsed(node.socket, "COMMAND", "DOCS", "get", "set", "nonsense")
    assert isinstance(documented, dict)
    assert documented.keys() == {b"get", b"set"}
    assert documented[b"get"].keys() >= {b"summary", b"group"}


@pytest.mark.parametrize("protocol", [2, 3])
def test_hello_greets_in_the_protocol_it_agrees_on(node: Served, protocol: int) -> None:
    """And takes a name on the way; without a version it changes nothing."""
    reader = hiredis.Reader()
    with Wire(node.socket) as wire:
        greeting = wire.ask("HELLO", protocol, "SETNAME", "greeted")
        assert greeting.startswith(b"%7\r\n" if protocol == 3 else b"*14\r\n")
        assert wire.ask("CLIENT", "GETNAME") == b"$7\r\ngreeted\r\n"
        assert wire.ask("GET", "none") == (b"_\r\n" if protocol == 3 else b"$-1\r\n")
        reader.feed(wire.ask("HELLO"))

    greeted = reader.gets()
    pairs = greeted if isinstance(greeted, dict) else dict(zip(greeted[::2], greeted[1::2], strict=True))
    assert (pairs[b"server"], pairs[b"proto"], pairs[b"role"]) == (b"turbopump", protocol, b"master")


def test_what_was_over_when_it_was_written_is_not_counted(node: Served) -> None:
    """Redis keeps it until somebody looks for it; here it is gone, and takes no memory."""
    with Wire(node.socket) as wire:
        wire.ask("FLUSHDB")
        for words in (("EXAT", 1), ("PXAT", 1)):
            assert wire.ask("SET", "a", 1) == b"+OK\r\n"
            assert wire.ask("SET", "a", 2, *words) == b"+OK\r\n"
            assert wire.ask("DBSIZE") == b":0\r\n"


def test_quit_answers_what_came_before_it_and_nothing_after(node: Served) -> None:
    """As Redis does."""
    with Wire(node.socket) as wire:
        wire.send(command("PING") + command("QUIT") + command("SET", "after", "quit"))
        assert wire.rest() == b"+PONG\r\n+OK\r\n"
    with Wire(node.socket) as wire:
        assert wire.ask("EXISTS", "after") == b":0\r\n"


def any_large_command(chance: random.Random) -> bytes:
    """A command with a value of some size, on few keys."""
    name, size = chance.choice("abc"), chance.choice([1, 100, 5_000, 32_767, 32_768, 300_000, 1_200_000])
    rows: list[list[str | bytes]] = [
        ["SET", name, bytes([chance.randrange(256)]) * size],
        ["APPEND", name, b"a" * (size // 10)],
        ["ECHO", b"e" * (size // 2)],
        ["GET", name],
        ["MGET", "a", "b", "c"],
        ["STRLEN", name],
    ]
    return command(*chance.choice(rows))


@pytest.mark.parametrize("seed", range(3))
def test_all_may_be_sent_before_a_reply_is_read(node: Served, redis: str, seed: int) -> None:
    """Megabytes of commands, whose replies are larger still; and a half-close behind them loses none."""
    chance = random.Random(seed)
    requests, size = [], 0
    while size < 8_000_000:
        requests.append(any_large_command(chance))
        size += len(requests[-1])
    data = command("FLUSHALL") + b"".join(requests)
    replies = []
    for path in (node.socket, redis):
        with Wire(path) as wire:
            replies.append(wire.send(data + command("QUIT")).rest())
    with Wire(node.socket) as wire:
        replies.append(wire.send(data).half_close().rest() + b"+OK\r\n")

    assert [len(reply) for reply in replies] == [len(replies[0])] * 3
    assert replies[0] == replies[1]
    assert replies[0] == replies[2]


TOKENS = [
    *"abc?*-^]",
    "[ab]",
    "[a-c]",
    "[c-a]",
    "[^a]",
    "[^a-b]",
    "[-a]",
    "[a-]",
    "[a^]",
    "[]a]",
    r"\*",
    r"\?",
    r"\[",
    r"\a",
]


def test_redis_finds_the_same_keys(node: Served, redis: str) -> None:
    """By thousands of patterns of every form, over keys that look like patterns."""
    chance = random.Random(8)
    keys = {"".join(chance.choices("abc-]^*?[\\", k=chance.randrange(1, 5))) for _ in range(150)}
    patterns = ["".join(chance.choices(TOKENS, k=chance.randrange(7))) for _ in range(3_000)]
    found = []
    for path in (node.socket, redis):
        reader = hiredis.Reader()
        with Wire(path) as wire:
            wire.ask("FLUSHALL")
            wire.ask("MSET", *(word for key in keys for word in (key, 1)))
            wire.send(b"".join(command("KEYS", pattern) for pattern in patterns))
            for _ in patterns:
                reader.feed(wire.reply())
        found.append([sorted(as_list(reader.gets())) for _ in patterns])  # type: ignore[type-var] # bytes

    for pattern, ours, theirs in zip(patterns, *found, strict=True):
        assert ours == theirs, pattern


NAMES = ["a", "b", "c", "{a}d", ""]
TEXTS = ["", "1", "-7", "x", "9223372036854775807", "10", "y" * 100]
SIMPLE = ["GET", "GETDEL", "GETEX", "INCR", "DECR", "STRLEN", "TTL", "PERSIST", "TYPE", "SETNX"]


def any_command(chance: random.Random) -> list[str]:
    """A command on few keys, right or wrong in some way; no reply depends on the millisecond."""
    name, text = chance.choice(NAMES), chance.choice(TEXTS)
    life = chance.choice(["100", "100", "1000", "0", "-1", "x"])
    past = chance.choice(["1", "100", "0", "-1", "x"])
    rows = [
        ["SET", name, text],
        ["SET", name, text, *chance.sample(["NX", "XX", "GET", "KEEPTTL"], chance.randrange(3))],
        ["SET", name, text, "EX", life, *chance.sample(["NX", "XX", "GET"], chance.randrange(2))],
        ["SET", name, text, chance.choice(["EXAT", "PXAT"]), past],
        ["GETEX", name, chance.choice(["PERSIST", "FOO"])],
        ["EXPIRE", name, life],
        ["EXPIRE", name, life, chance.choice(["NX", "XX"])],
        ["EXPIREAT", name, past],
        ["INCRBY", name, text],
        ["DECRBY", name, text],
        ["APPEND", name, text],
        ["MSET", name, text, chance.choice(NAMES), chance.choice(TEXTS)],
        ["MGET", *chance.choices(NAMES, k=3)],
        ["DEL", *chance.choices(NAMES, k=chance.randrange(1, 3))],
        ["EXISTS", *chance.choices(NAMES, k=2)],
        ["KEYS", chance.choice(NAMES)],
        ["EXISTS", name],
        [chance.choice(SIMPLE)],
    ]
    return chance.choice([*rows, *([word, name] for word in SIMPLE)])


@pytest.mark.parametrize("seed", range(8))
def test_redis_says_the_same_to_any_sequence(node: Served, redis: str, seed: int) -> None:
    """Thousands of commands on few keys, where each depends on those before it."""
    chance = random.Random(seed)
    commands = [[word.encode() for word in any_command(chance)] for _ in range(1_500)]
    replies = []
    for path in (node.socket, redis):
        with Wire(path) as wire:
            wire.ask("FLUSHALL")
            wire.send(b"".join(command(*words) for words in commands))
            replies.append([wire.reply() for _ in commands])

    for index, (ours, theirs) in enumerate(zip(*replies, strict=True)):
        assert ours == theirs, commands[max(0, index - 20) : index + 1]
