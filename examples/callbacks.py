"""A function that runs after each write, and a look at all that changes: in a node of this program's own."""

import asyncio

from turbopump import Changed, Node


async def main() -> None:
    """Writes, and waits until the callback was told."""
    node, told = Node(), asyncio.Event()

    @node.on("written", prefix="greetings/", concurrency=1)
    async def greeted(change: Changed) -> None:
        print(change.key.decode(), await node.get(change.key))
        told.set()

    async with node, node.watch("greetings/") as changes:
        await node.put("greetings/1", "hello")
        await node.delete("greetings/2")  # there is nothing, so nothing changes
        change = await anext(changes)
        print(change.kind, change.size)
        await told.wait()


asyncio.run(main())
