"""A client of a running node (`turbopump serve`), first blocking, then with asyncio."""

import asyncio

from turbopump import AsyncClient, Client


def blocking() -> None:
    """One call at a time, and many in one round trip."""
    with Client() as client:
        client.put("greeting", "hello", ttl=60)
        print(client.get("greeting"))

        with client.pipeline() as pipe:
            for number in range(3):
                pipe.put(f"square/{number}", str(number**2))
            two = pipe.get("square/2")
        print(two.result(), sorted(client.list("square/")))


async def concurrent() -> None:
    """Any number of calls at once over one connection."""
    async with AsyncClient() as client:
        print(await asyncio.gather(*(client.get(f"square/{number}") for number in range(3))))


blocking()
asyncio.run(concurrent())
