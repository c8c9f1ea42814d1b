"""Clients of a node in another process: `Client` blocks, `AsyncClient` is for asyncio.

    call         what a command asks, and what its answer means
    pipeline     many of them together
    blocking, asynchronous     the connections

Nothing is ever sent twice. A call that finds the connection lost raises ConnectionLostError, and whether it
happened is unknown; the next call connects anew. Reads may be repeated safely, and writes and deletes that
were given a name with `once`.
"""
