"""A node inside your own asyncio program: in memory, no socket, under a microsecond a read."""

import asyncio

from turbopump import ConflictError, Node


async def main() -> None:
    """Writes, reads and lists, then changes a value only if nobody else did."""
    async with Node() as node:
        version = await node.put("greeting", "hello")
        print(await node.get("greeting"))

        await node.put("greeting", "good morning", if_version=version)
        try:
            await node.put("greeting", "good evening", if_version=version)
        except ConflictError as error:
            print(f"somebody was faster: {error.code}")

        print([key async for key in node.list("greet")])


asyncio.run(main())
