"""A whole cluster inside a test, with your code and your callbacks, over a network that misbehaves on demand.

Nodes, keys, encryption, healing and time are the real ones; the network is a relay in this process for each
direction between two nodes, which loses, delays, repeats or cuts as it is told. Not a simulation: what
happens at the same time may happen in another order in the next run.

Nothing has to be registered. With pytest-asyncio a cluster is a fixture as below, without it a test calls
`asyncio.run(story())`, where `story` has the `async with`.

Example:
    import asyncio

    import pytest
    import pytest_asyncio
    from turbopump import UnavailableError
    from turbopump.testing import cluster

    missed = asyncio.Queue(100)

    def setup(node):
        @node.on("healed", prefix="orders/")
        async def ordered(change):
            await missed.put((node.member.name, change.key))

    @pytest_asyncio.fixture
    async def shop():
        async with cluster(nodes=3, config={"cluster": {"peer_timeout": 0.5}}, setup=setup) as nodes:
            yield nodes

    @pytest.mark.asyncio
    async def test_orders_outlive_a_split(shop):
        shop.split({"a"}, {"b", "c"})
        await shop.noticed()
        await shop["b"].put("orders/1", "tea")
        with pytest.raises(UnavailableError):  # too few have it, and it stays
            await shop["a"].put("orders/2", "milk")

        shop.mend()
        await shop.healed()

        assert [await node.get("orders/2") for node in shop] == [b"milk"] * 3
        await shop.restart("c", empty=True)
        await shop.healed()
        assert await shop["c"].get("orders/1") == b"tea"
        async with asyncio.timeout(10):  # callbacks come a little later
            while await missed.get() != ("a", b"orders/1"):
                pass
"""

from turbopump.testing.harness import Cluster, cluster
from turbopump.testing.network import Traffic

__all__ = ["Cluster", "Traffic", "cluster"]
