"""client/asynchronous.py: `AsyncClient` against a real node."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from conftest import Serve, Served, turn
from turbopump import (
    AsyncClient,
    ConflictError,
    ConnectionLostError,
    DeniedError,
    RequestError,
    TurbopumpError,
    UnavailableError,
)


@pytest.fixture
async def client(node: Served) -> Any:
    """A client for asyncio."""
    async with AsyncClient(node.socket, timeout=20) as connected:
        yield connected


async def test_the_commands(client: AsyncClient, prefix: str) -> None:
    """Each answers as the blocking one does."""
    version = await client.put(prefix, "1", ttl=1000)
    entry = await client.read(prefix)
    assert entry is not None
    assert (entry.value, entry.version) == (b"1", version)
    assert await client.read(prefix, version=version) == entry
    assert await client.get(prefix) == b"1"
    assert await client.exists(prefix)
    assert [told.version for told in await client.versions(prefix)] == [version]
    assert await client.wait(prefix, 10) == version
    assert (await client.status())["state"] == "running"
    with pytest.raises(TurbopumpError):  # it is a node alone
        await client.sync()
    assert [key async for key in client.list(prefix)] == [prefix.encode()]
    assert await client.delete(prefix, if_version=version) is not None
    assert await client.get(prefix) is None
    with pytest.raises(ConflictError):
        await client.put(prefix, "1", if_present=True)


async def test_many_at_once(client: AsyncClient, prefix: str) -> None:
    """Each task gets its own answer."""

    async def work(number: int) -> bool:
        await client.put(f"{prefix}{number}", str(number))
        return await client.get(f"{prefix}{number}") == str(number).encode()

    assert all(await asyncio.gather(*(work(number) for number in range(500))))
    assert len([key async for key in client.list(prefix, page=50)]) == 500


async def test_a_cancelled_call_mixes_nothing_up(client: AsyncClient, prefix: str) -> None:
    """Half of the calls are cancelled, at every moment of their life; the others get their answers."""
    keys = [f"{prefix}{number}" for number in range(200)]
    async with client.pipeline() as pipe:
        for key in keys:
            pipe.put(key, key)

    async def read(key: str) -> bool:
        return await client.get(key) == key.encode()

    for delay in range(5):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(read(key)) for key in keys]
            for _ in range(delay):
                await turn()
            for task in tasks[::2]:
                task.cancel()
        assert all(task.cancelled() or task.result() for task in tasks)
        assert all(task.result() for task in tasks[1::2])


async def test_waiting_holds_nobody_up(client: AsyncClient, prefix: str) -> None:
    """It has a connection of its own, as answers come in order."""
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(client.wait(prefix, 20))
        await turn()
        await client.ping()
        version = await client.put(prefix, "1")

    assert waiting.result() == version
    with pytest.raises(UnavailableError) as raised:
        await client.wait(prefix + "x", 0.01)
    assert raised.value.code == "timeout"


async def test_a_pipeline(client: AsyncClient, prefix: str) -> None:
    """As the blocking one, megabytes too."""
    value = b"x" * 100_000
    async with client.pipeline(raise_errors=False) as pipe:
        pipe.put("", "1")
        for number in range(50):
            pipe.put(f"{prefix}{number}", value)
            pipe.get(f"{prefix}{number}")
    assert isinstance(pipe.results[0], RequestError)
    assert pipe.results[2::2] == [value] * 50

    with pytest.raises(RequestError):
        async with client.pipeline() as pipe:
            pipe.get("")
    pipe = client.pipeline()
    pipe.put(prefix + "none", "1")
    with pytest.raises(KeyError):
        async with pipe:
            raise KeyError("mine")
    assert await client.get(prefix + "none") is None


async def test_a_large_value(client: AsyncClient, prefix: str) -> None:
    """While others are served on the same connection."""
    value = random.Random(3).randbytes(5_000_000)
    await asyncio.gather(client.put(prefix, value), client.ping())

    assert await client.get(prefix) == value


async def test_a_restarted_node_is_found_again(serve: Serve, folder: Path) -> None:
    """By the first call after it is there."""
    path = str(folder / "s")
    first = serve(None, "--socket", path).ready()
    client = AsyncClient(path)
    await client.put("a", "1")
    first.stop()
    with pytest.raises(ConnectionLostError):
        await client.get("a")

    serve(None, "--socket", path).ready()
    await asyncio.gather(*(client.put(str(number), "") for number in range(10)))
    client.close()
    assert await client.get("a") is None
    client.close()


async def test_passwords(serve: Serve) -> None:
    """Right, wrong and none."""
    served = serve({"members": [{"tcp": {"port": 0, "password": "secret"}}]}).ready()
    async with AsyncClient(served.socket) as client:
        node = (await client.status())["addresses"][1]
    async with AsyncClient(node, password="secret") as client:
        await client.put("a", "1")
    for password, code in (("wrong", "denied"), (None, "auth_required")):
        with pytest.raises(DeniedError) as raised:
            await AsyncClient(node, password=password).ping()
        assert raised.value.code == code
