"""The scenes of the gas benchmark on the embedded chain: each runs, and its bill can be explained."""

import asyncio

from bench import gas_requests
from bench.bench_gas import SCENES
from bench.gas_stage import EMBEDDED, Stage, stage


async def play() -> Stage:
    async with stage(EMBEDDED, quick=True) as here:
        for scene in SCENES:
            await scene(here)
        return here


def test_every_scene_is_played_and_billed() -> None:
    here = asyncio.run(play())
    costs = here.costs
    assert list(costs) == list(here.words)
    assert len(costs) > len(SCENES)
    assert all(cost.gas / cost.per > 9_000 for cost in costs.values())
    fixed, each = gas_requests.redemption(costs, here.batches, lambda cost: cost.gas)
    assert round(fixed + each) == costs["gas_per_voucher_k1"].gas
    # A voucher's own share: below the ERC-20 transfer that it replaces, above what its calldata and slot must cost.
    assert 9_000 < each < gas_requests.unit(costs, "gas_erc20_transfer") / 3
    disputed = [cost.gas for name, cost in costs.items() if name.startswith("gas_dispute_")]
    assert sum(disputed) == 2 * costs["gas_dispute_verdict_of_three"].gas
