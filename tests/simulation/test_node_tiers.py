"""A node whose machine failed a tier's self-test: it offers nothing that needs it, and says why and what to do."""

import asyncio
from pathlib import Path

from lading_net.clock import run_virtual
from lading_node.engines.factory import Means, open_engine
from lading_node.engines.port import EngineSpec
from lading_node.status import why_not_earning
from simulation.node_world import Sea


def test_an_agent_whose_tier_did_not_pass_is_refused_in_words(tmp_path: Path) -> None:
    async def main() -> None:
        sea = await Sea.create()
        made: list[EngineSpec] = []

        def engine(spec: EngineSpec) -> object:
            made.append(spec)
            return open_engine(spec, tmp_path, Means(tiers=("C",)))

        node = sea.node("host", engine=engine)
        running = asyncio.ensure_future(node.run())
        await node.started.wait()
        await asyncio.sleep(30)
        (agent,) = node.agents
        assert agent.state == "withdrawn"
        assert agent.offer is None
        assert "need tier P (a confined process)" in agent.why
        assert "lading node probe" in agent.why
        assert agent.why in " ".join(why_not_earning(node))
        assert len(made) == 1, "the machine does not change while it runs: trying again is of no use"
        node.stop()
        await running

    run_virtual(main())
