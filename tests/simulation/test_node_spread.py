"""An engine that is many (a cluster): the node's offers follow what it has now, and no job that runs minds."""

import asyncio

from msgspec.structs import replace

from lading_net.clock import run_virtual
from lading_node.engines.memory import MemoryEngine
from lading_node.engines.port import EngineSpec, Health
from simulation.node_world import AGENT, Gateway, Sea


class Cluster(MemoryEngine):
    """Of so many members, as they come and go."""

    members = 1

    def health(self) -> Health:
        return replace(super().health(), slots=4 * self.members, device=f"machine-{min(self.members, 2)}")


def test_the_offer_follows_what_the_cluster_has() -> None:
    async def main() -> None:
        sea = await Sea.create()
        gateway = Gateway(sea)
        await sea.fund(gateway.key)
        made: list[Cluster] = []

        def engine(spec: EngineSpec) -> Cluster:
            made.append(Cluster(spec, token_delay=0.05))
            return made[-1]

        node = sea.node("host", coordinators=(await gateway.start(),), engine=engine)
        running = asyncio.ensure_future(node.run())
        await node.started.wait()
        await gateway.offers(1)

        def offered() -> tuple[int, str]:
            (one,) = gateway.directory.candidates(AGENT)
            return one.offer.offer.slots, one.offer.detail.device

        assert offered() == (4, "machine-1")
        (agent,) = node.agents
        asking = asyncio.ensure_future(gateway.ask())
        await asyncio.sleep(1.5)
        for members, free in ((3, 11), (1, 3), (2, 7)):
            made[0].members = members
            await asyncio.sleep(2.5)
            assert offered() == (4 * members, f"machine-{min(members, 2)}")
            assert agent.free == free + (agent.active == 0)
        text, ids = await asking
        assert text
        assert ids
        (ended,) = gateway.ended
        assert len(ended.parts) == 1
        assert len(made) == 1, "the engine is not restarted for it"
        node.stop()
        await running

    run_virtual(main())
