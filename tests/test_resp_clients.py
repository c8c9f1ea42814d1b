"""Redis's own clients against a node: redis-cli, redis-benchmark, and redis-py in each of its ways."""

import asyncio
import random
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.utils import HIREDIS_AVAILABLE

from conftest import Serve, Served
from wire import Wire, until

PROTOCOLS = [2, 3]
KEYS = [b"\x00\xff", b"a b|c=d\r\n", "ключ".encode(), b"k" * 4096]
VALUES = [b"", b"x", bytes(range(256)), random.Random(3).randbytes(100_000)]


@pytest.fixture(params=PROTOCOLS)
def client(node: Served, request: pytest.FixtureRequest) -> Iterator[Any]:
    """redis-py's client, on a node that is empty."""
    with redis.Redis(unix_socket_path=node.socket, protocol=request.param, socket_timeout=20) as connected:
        connected.flushdb()
        yield connected


@pytest.fixture(params=PROTOCOLS)
async def later(node: Served, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """redis-py's asyncio client, on a node that is empty."""
    connected = redis.asyncio.Redis(unix_socket_path=node.socket, protocol=request.param, socket_timeout=20)
    await connected.flushdb()
    yield connected
    await connected.aclose()


def cli(node: Served, *arguments: str, stdin: bytes = b"") -> str:
    """What redis-cli prints."""
    assert shutil.which("redis-cli"), "redis-cli is not here: apt-get install redis-tools"
    done = subprocess.run(
        ["redis-cli", "-s", node.socket, *arguments],
        input=stdin,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def test_hiredis_is_here() -> None:
    """Otherwise half of what follows would test the same parser twice."""
    assert HIREDIS_AVAILABLE


def test_strings(client: Any) -> None:
    """SET with all its options, GET and its kin."""
    assert client.set("a", "1") is True
    assert client.get("a") == b"1"
    assert client.set("a", "2", nx=True) is None
    assert client.set("a", "2", xx=True) is True
    assert client.set("b", "2", xx=True) is None
    assert client.set("a", "3", get=True) == b"2"
    assert client.set("a", "4", ex=100) is True
    assert client.set("a", "5", keepttl=True) is True
    assert client.ttl("a") == 100
    assert client.set("a", "6", px=100_000) is True
    assert 90_000 < client.pttl("a") <= 100_000
    assert client.set("a", "7", exat=33_177_117_420) is True
    assert client.expiretime("a") == 33_177_117_420
    assert client.set("a", "8", pxat=33_177_117_420_123) is True
    assert client.pexpiretime("a") == 33_177_117_420_123
    assert client.getdel("a") == b"8"
    assert client.getdel("a") is None
    assert client.append("a", "xy") == 2
    assert client.strlen("a") == 2
    assert client.mset({"a": "1", "b": "2"}) is True
    assert client.mget("a", "none", "b") == [b"1", None, b"2"]


def test_counters_and_lifetimes(client: Any) -> None:
    """INCR and its kin, EXPIRE and its kin, GETEX."""
    assert (client.incr("n"), client.incrby("n", 9), client.decr("n"), client.decrby("n", 10)) == (
        1,
        10,
        9,
        -1,
    )
    client.set("s", "text")
    with pytest.raises(redis.ResponseError, match="value is not an integer or out of range"):
        client.incr("s")
    assert client.ttl("n") == -1
    assert client.ttl("none") == -2
    assert client.expire("n", 100) is True
    assert client.expire("n", 50, nx=True) is False
    assert client.expire("n", 50, lt=True) is True
    assert client.ttl("n") == 50
    assert client.persist("n") is True
    assert client.pexpire("n", 100_000) is True
    assert client.expireat("n", 33_177_117_420) is True
    assert client.getex("n", persist=True) == b"-1"
    assert client.ttl("n") == -1
    assert client.getex("n", ex=100) == b"-1"
    assert client.ttl("n") == 100
    assert client.set("short", "1", px=20) is True
    until(lambda: client.get("short") is None, "the value's end")


def test_keys_and_databases(client: Any) -> None:
    """EXISTS, DEL, SCAN, KEYS, RANDOMKEY, DBSIZE, FLUSHDB, TYPE."""
    names = {b"key:%d" % number for number in range(2_500)}
    client.mset(dict.fromkeys(names, "x"))

    assert client.dbsize() == len(names)
    assert set(client.scan_iter()) == names
    assert set(client.scan_iter(match="key:1*", count=1000)) == {name for name in names if name[4:5] == b"1"}
    assert set(client.scan_iter(_type="string")) == names
    assert set(client.keys("key:??")) == {name for name in names if len(name) == 6}
    assert client.randomkey() in names
    assert client.exists("key:1", "key:1", "none") == 2
    assert client.delete("key:1", "none") == 1
    assert client.unlink("key:2", "key:3") == 2
    assert client.type("key:4") == b"string"
    assert client.type("none") == b"none"
    assert client.flushdb() is True
    assert client.dbsize() == 0
    assert client.randomkey() is None


@pytest.mark.parametrize("key", KEYS, ids=lambda key: repr(key[:10]))
def test_any_bytes_come_back(client: Any, key: bytes) -> None:
    """As keys and as values."""
    for value in VALUES:
        client.set(key, value)
        assert client.get(key) == value
    assert client.keys() == [key]
    assert list(client.scan_iter()) == [key]


def test_a_pipeline(client: Any) -> None:
    """Replies in order; an error in its place, where asked for."""
    with client.pipeline(transaction=False) as pipe:
        for number in range(5_000):
            pipe.set(f"p{number}", number).get(f"p{number}")
        replies = pipe.execute()
    assert replies == [reply for number in range(5_000) for reply in (True, b"%d" % number)]

    with client.pipeline(transaction=False) as pipe:
        replies = pipe.set("s", "x").incr("s").get("s").execute(raise_on_error=False)
    assert replies[0] is True
    assert isinstance(replies[1], redis.ResponseError)
    assert replies[2] == b"x"


@pytest.mark.parametrize("count", [20_000, 100_000])
def test_a_pipeline_that_is_sent_before_a_reply_is_read(node: Served, count: int) -> None:
    """As redis-py does it, however long it is: Redis takes all of it."""
    names = [f"k{number}" for number in range(count)]
    once = Retry(NoBackoff(), 0)
    with (
        redis.Redis(unix_socket_path=node.socket, socket_timeout=10, retry=once) as client,
        client.pipeline(transaction=False) as pipe,
    ):
        for name in names:
            pipe.set(name, "v" * 50)
        assert pipe.execute() == [True] * count
        for name in names:
            pipe.get(name)
        assert pipe.execute() == [b"v" * 50] * count


def test_about_connections(client: Any) -> None:
    """CLIENT: id, name, list, kill."""
    assert client.client_id() > 0
    assert client.client_getname() is None
    assert client.client_setname("tested") is True
    assert client.client_getname() in {"tested", b"tested"}  # redis-py decodes it in one protocol only
    [mine] = [one for one in client.client_list() if one["name"] == "tested"]
    assert int(mine["id"]) == client.client_id()
    assert mine["lib-name"].startswith("redis-py")
    assert client.client_no_evict("ON") in {True, b"OK", "OK"}

    with redis.Redis(unix_socket_path=client.connection_pool.connection_kwargs["path"]) as other:
        victim = other.client_id()
        assert client.client_kill_filter(_id=victim) == 1
        assert other.client_id() != victim  # it connects anew
    assert client.client_kill_filter(_id=victim) == 0


def test_a_client_is_ended_by_its_address(serve: Serve) -> None:
    """The older way, over TCP: what CLIENT LIST calls `addr`."""
    node = serve({"members": [{"tcp": {"port": 0}}]}).ready()
    with Wire(node.socket) as wire:
        port = int(wire.send(b"membership||\n").line().rsplit(b":", 1)[1])
    with redis.Redis(port=port) as client, Wire(("127.0.0.1", port)) as victim:
        mine = int(victim.ask("CLIENT", "ID")[1:])
        [address] = [one["addr"] for one in client.client_list() if int(one["id"]) == mine]
        assert client.client_kill(address) is True
        assert victim.rest() == b""
        with pytest.raises(redis.ResponseError, match="No such client"):
            client.client_kill(address)


def test_a_client_may_end_itself(client: Any) -> None:
    """Only if it says so, as Redis has it; and it is answered first."""
    path = client.connection_pool.connection_kwargs["path"]
    with Wire(path) as wire:
        mine = int(wire.ask("CLIENT", "ID")[1:])
        assert wire.ask("CLIENT", "KILL", "ID", mine) == b":0\r\n"
        assert wire.ask("CLIENT", "KILL", "ID", mine, "SKIPME", "no") == b":1\r\n"
        assert wire.rest() == b""


def test_about_the_server(client: Any) -> None:
    """INFO, CONFIG GET, COMMAND, MEMORY USAGE, OBJECT ENCODING, PING, ECHO, TIME."""
    info = client.info()
    assert re.fullmatch(r"\d+\.\d+\.\d+", info["redis_version"])
    assert info["connected_clients"] >= 1
    assert info["used_memory"] >= 0
    assert "used_memory" in client.info("memory")
    assert "redis_version" not in client.info("memory")
    client.set("a", "12345")
    assert client.info("keyspace")["db0"]["keys"] == 1

    assert client.config_get("maxmemory") == {"maxmemory": "0"}
    assert set(client.config_get("max*")) >= {"maxmemory", "maxclients"}
    assert client.config_get("nothing-like-this") == {}
    assert client.command_count() >= 50
    assert set(client.command()) >= {"get", "set", "scan", "hello"}
    assert client.memory_usage("a") >= 5
    assert client.memory_usage("none") is None
    assert client.object("encoding", "a") == b"int"
    assert client.ping() is True
    assert client.echo("hi") == b"hi"
    assert len(client.time()) == 2


def test_unknown_commands_and_wrong_numbers_of_arguments(client: Any) -> None:
    """In the words that programs match on."""
    with pytest.raises(
        redis.ResponseError, match="unknown command 'LPUSH', with args beginning with: 'a' 'b'"
    ):
        client.lpush("a", "b")
    with pytest.raises(redis.ResponseError, match="wrong number of arguments for 'get' command"):
        client.execute_command("GET")
    with pytest.raises(redis.ResponseError, match="DB index is out of range"):
        client.execute_command("SELECT", "99")


def test_a_large_value(client: Any) -> None:
    """Through hiredis's buffers, with other commands right behind."""
    value = random.Random(4).randbytes(20_000_000)
    with client.pipeline(transaction=False) as pipe:
        assert pipe.set("large", value).get("large").ping().execute() == [True, value, True]


async def test_asyncio(later: Any) -> None:
    """The same commands, awaited, and many at once."""
    assert await later.set("a", "1", ex=100) is True
    assert await later.get("a") == b"1"
    assert await later.ttl("a") == 100
    assert await later.mset({f"k{number}": number for number in range(100)}) is True
    assert await asyncio.gather(*(later.get(f"k{number}") for number in range(100))) == [
        b"%d" % number for number in range(100)
    ]
    assert {key async for key in later.scan_iter(match="k*", count=10)} == {b"k%d" % n for n in range(100)}
    assert await asyncio.gather(*(later.incr("n") for _ in range(100))) != []
    assert await later.get("n") == b"100"


async def test_an_asyncio_pipeline(later: Any) -> None:
    """With errors in their places."""
    async with later.pipeline(transaction=False) as pipe:
        for number in range(1_000):
            pipe.set(f"p{number}", number)
        pipe.incr("p1").get("none").execute_command("NONSENSE")
        replies = await pipe.execute(raise_on_error=False)

    assert replies[:1_000] == [True] * 1_000
    assert replies[1_000:1_002] == [2, None]
    assert "unknown command 'NONSENSE'" in str(replies[1_002])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_password_over_tcp(serve: Serve, protocol: int) -> None:
    """AUTH and HELLO AUTH, a wrong one and none."""
    node = serve({"members": [{"tcp": {"port": 0, "password": "sesame"}}]}).ready()
    with Wire(node.socket) as wire:
        port = int(wire.send(b"membership||\n").line().rsplit(b":", 1)[1])
    options: dict[str, Any] = {"port": port, "protocol": protocol, "retry": Retry(NoBackoff(), 0)}
    with redis.Redis(password="sesame", **options) as client:
        assert client.set("a", "1") is True
    with redis.Redis(username="default", password="sesame", **options) as client:
        assert client.get("a") == b"1"
    wrong: list[dict[str, Any]] = [{}, {"password": "guess"}, {"username": "other", "password": "sesame"}]
    for credentials in wrong:
        with (
            redis.Redis(**credentials, **options) as client,
            pytest.raises(redis.AuthenticationError),
        ):
            client.get("a")


def test_redis_cli_asks_and_prints(node: Served) -> None:
    """In both protocols, with options, and with what it reads from its standard input."""
    cli(node, "FLUSHDB")
    for option in ((), ("-3",), ("-2",)):
        assert cli(node, *option, "SET", "foo", "a value") == "OK\n"
        assert cli(node, *option, "GET", "foo") == "a value\n"
    assert cli(node, "--no-raw", "GET", "none") == "(nil)\n"
    assert cli(node, "-x", "SET", "stdin", stdin=b"\x00any\nbytes") == "OK\n"
    assert cli(node, "--no-raw", "GET", "stdin") == '"\\x00any\\nbytes"\n'
    assert cli(node, stdin=b"SET a 1\nINCR a\nGET a\n").split() == ["OK", "2", "2"]
    assert "unknown command 'NONSENSE'" in cli(node, "NONSENSE")
    assert "redis_version:" in cli(node, "INFO")
    assert cli(node, "CONFIG", "GET", "maxmemory").split() == ["maxmemory", "0"]
    assert cli(node, "-r", "3", "PING") == "PONG\n" * 3


def test_redis_cli_scans_and_pipes(node: Served) -> None:
    """Its bulk loading and its listing."""
    cli(node, "FLUSHDB")
    load = b"".join(b"*3\r\n$3\r\nSET\r\n$5\r\nk%04d\r\n$1\r\nx\r\n" % number for number in range(5_000))
    assert "errors: 0, replies: 5000" in cli(node, "--pipe", stdin=load)

    assert sorted(cli(node, "--scan").split()) == [f"k{number:04}" for number in range(5_000)]
    assert len(cli(node, "--scan", "--pattern", "k000?").split()) == 10
    assert cli(node, "DBSIZE") == "5000\n"
    assert "Biggest string" in cli(node, "--bigkeys").replace("biggest", "Biggest")


def test_redis_benchmark_runs_unmodified(node: Served, folder: Path) -> None:
    """Every test that it has for these commands, alone, in pipelines, and with random keys."""
    assert shutil.which("redis-benchmark"), "redis-benchmark is not here: apt-get install redis-tools"
    base = ["redis-benchmark", "-s", node.socket, "-q", "-n", "2000", "-c", "10"]
    for more in ([], ["-P", "16"], ["-r", "1000", "-d", "1000"], ["--threads", "2"]):
        done = subprocess.run(
            [*base, "-t", "ping,set,get,mset,incr", *more],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=folder,
        )
        figures = re.findall(
            r"^(\S.*): [0-9.]+ requests per second", done.stdout.replace("\r", "\n"), re.MULTILINE
        )
        assert done.returncode == 0, done.stderr
        assert "rror" not in done.stdout + done.stderr, done.stdout + done.stderr
        assert figures[-6:] == ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET (10 keys)"]
