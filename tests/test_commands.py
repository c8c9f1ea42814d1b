"""commands.py: what a node says about itself, in words that people, programs and Redis clients read."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from turbopump._native import Engine
from turbopump.commands import Commands
from turbopump.config import Config, engine_options, parse
from turbopump.errors import TurbopumpError

CLIENT = {
    "id": 7,
    "address": "unix:7",
    "fd": 9,
    "name": "worker",
    "library": "redis-py",
    "library_version": "8",
    "protocol": "resp",
    "tcp": False,
    "age_ms": 61_999,
    "idle_ms": 1_500,
    "unsent": 0,
}


class Observed:
    """The figures of a real engine that never started, and one client."""

    def __init__(self, config: Config) -> None:
        self._engine = Engine(engine_options(config, config.member()))
        self.killed: list[int] = []

    def stats(self) -> dict[str, object]:
        """Those of an empty store."""
        return self._engine.stats()

    def clients(self) -> list[dict[str, object]]:
        """One."""
        return [CLIENT]

    def kill(self, id: int) -> bool:  # noqa: A002 - as the engine calls it
        """Only that one."""
        self.killed.append(id)
        return id == CLIENT["id"]


CLUSTER = {"cluster": {"name": "turbopump"}, "peers": [{"name": "beta", "state": "down"}]}


def commands(document: object = None, shut_down: Callable[[], None] | None = None) -> Commands:
    """The commands of a node called alpha."""
    config = parse(document or {"members": [{"name": "alpha", "tcp": {"password": "secret"}}]})
    return Commands(
        config,
        config.member(),
        Observed(config),
        state=lambda: "running",
        addresses=lambda: ["/tmp/a", "tcp://127.0.0.1:1592"],
        uptime=lambda: 61.5,
        cluster=lambda: CLUSTER,
        shut_down=shut_down,
    )


async def run(name: str, *args: bytes, of: Commands | None = None) -> Any:
    """Runs a command as the engine would have it run."""
    return await (of or commands()).table()[name](list(args))


def test_the_table_has_what_the_engine_asks() -> None:
    """The names stand in rust/core: pipe/commands.rs and resp/."""
    asked = {"state", "status", "info", "config", "shutdown", "client"}

    assert set(commands().table()) == asked


async def test_the_word_of_the_first_turbopump() -> None:
    """One, as it was."""
    assert await run("state") == "running"


async def test_status_is_json() -> None:
    """With what the engine counts."""
    status = json.loads(await run("status"))

    assert status["name"] == "alpha"
    assert status["state"] == "running"
    assert status["uptime_seconds"] == 61.5
    assert status["build"]["version"]
    assert status["keys"] == 0
    assert status["keyspaces"][0]["prefix"] == ""
    assert status["cluster"] == CLUSTER["cluster"]
    assert status["peers"] == CLUSTER["peers"]


async def test_info_says_whether_this_is_a_cluster() -> None:
    """Which Redis clients ask before they send CLUSTER."""
    key = "A" * 86
    document = {"cluster": {}, "members": [{"name": "a", "address": "10.0.0.1", "public_key": key}]}
    config = parse(document)
    found = Commands(
        config,
        config.member(),
        Observed(parse({})),
        state=str,
        addresses=list,
        uptime=float,
        cluster=dict,
        shut_down=None,
    )

    text = await run("info", of=found)
    assert "redis_mode:cluster\r\n" in text
    assert "cluster_enabled:1\r\n" in text


async def test_info_has_redis_sections() -> None:
    """As redis-py parses them."""
    text = await run("info")

    assert text.startswith("# Server\r\nredis_version:")
    for line in ("connected_clients:0", "used_memory:0", "role:master", "cluster_enabled:0", "loading:0"):
        assert f"\r\n{line}\r\n" in text
    assert "db0:keys=0,expires=0,avg_ttl=0" in text


@pytest.mark.parametrize(
    ("args", "sections"),
    [
        ((b"memory",), ["Memory"]),
        ((b"MEMORY", b"clients"), ["Clients", "Memory"]),
        ((b"nothing",), []),
        ((b"\xff",), []),
    ],
)
async def test_info_of_some_sections(args: tuple[bytes, ...], sections: list[str]) -> None:
    """In any case of letters."""
    text = await run("info", *args)

    assert [line[2:] for line in text.splitlines() if line.startswith("#")] == sections


@pytest.mark.parametrize("word", [b"all", b"everything", b"default"])
async def test_info_of_everything(word: bytes) -> None:
    """Redis's words for it."""
    assert (await run("info", word)).count("# ") == (await run("info")).count("# ")


async def test_config_get_takes_patterns() -> None:
    """Redis's names and ours."""
    assert await run("config", b"GET", b"save", b"appendonly") == {"save": "", "appendonly": "no"}
    assert await run("config", b"get", b"limits.max_k*") == {
        "limits.max_key": "4096",
        "limits.max_keys": "1000000",
    }
    assert await run("config", b"GET", b"nothing") == {}


async def test_config_get_never_shows_a_password() -> None:
    """Whoever may ask is not whoever may know."""
    assert "secret" not in str(await run("config", b"GET", b"*"))


@pytest.mark.parametrize("args", [(), (b"GET",), (b"SET", b"save", b""), (b"REWRITE",)])
async def test_config_cannot_be_changed(args: tuple[bytes, ...]) -> None:
    """What is in the file is what is true."""
    with pytest.raises(TurbopumpError, match="edit the file"):
        await run("config", *args)


async def test_client_list_reads_as_redis_writes_it() -> None:
    """A line of name=value, seconds for ages; all clients, or those asked for."""
    [line] = str(await run("client", b"7", b"list")).splitlines()
    fields = dict(field.split("=") for field in line.split())

    assert fields["id"] == "7"
    assert fields["addr"] == "unix:7"
    assert fields["name"] == "worker"
    assert (fields["age"], fields["idle"]) == ("61", "1")
    assert await run("client", b"7", b"INFO") == await run("client", b"9", b"LIST", b"ID", b"5", b"7")
    assert await run("client", b"7", b"LIST", b"TYPE", b"pubsub") == ""


async def test_client_kill_counts() -> None:
    """As Redis answers it: the caller is spared unless it says otherwise."""
    assert await run("client", b"9", b"KILL", b"ID", b"7") == 1
    assert await run("client", b"9", b"kill", b"id", b"8") == 0
    assert await run("client", b"7", b"KILL", b"ID", b"7") == 0
    assert await run("client", b"7", b"KILL", b"ID", b"7", b"SKIPME", b"no") == 1
    assert await run("client", b"9", b"KILL", b"unix:7") is True


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((b"KILL", b"unix:8"), "No such client"),
        ((b"KILL", b"ID", b"x"), "client-id should be greater than 0"),
        ((b"KILL", b"ID", b"7", b"SKIPME"), "syntax error"),
        ((b"KILL", b"SKIPME", b"perhaps"), "syntax error"),
        ((b"KILL", b"TYPE", b"odd"), "Unknown client type 'odd'"),
        ((b"LIST", b"FOO"), "syntax error"),
        ((b"LIST", b"ID", b"x"), "Invalid client ID"),
    ],
)
async def test_other_client_commands_are_refused(args: tuple[bytes, ...], words: str) -> None:
    """In Redis's words."""
    with pytest.raises(TurbopumpError, match=words):
        await run("client", b"9", *args)


async def test_shutdown_is_for_processes() -> None:
    """A client must not end a program that has a node inside."""
    with pytest.raises(TurbopumpError) as raised:
        await run("shutdown")
    assert raised.value.code == "denied"

    ended: list[bool] = []
    assert await run("shutdown", of=commands(shut_down=lambda: ended.append(True))) is True
    assert ended == [True]
