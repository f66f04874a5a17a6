"""A network of light hosts in one process, over real sockets: jobs run on while hosts die and come back."""

from __future__ import annotations

import asyncio

from lading_demo.devnet import Devnet, check

HOSTS, JOBS, SEED = 12, 40, 11


def test_jobs_go_on_while_a_third_of_the_hosts_dies() -> None:
    async def main() -> None:
        async with asyncio.timeout(60), Devnet(HOSTS) as net:
            found = await check(net, JOBS, 0.3, 2.0, SEED)
            assert (found.deaths, found.jobs, found.answered) == (4, JOBS, JOBS)
            assert found.moved >= 1  # deaths amid jobs, which nobody noticed
            await net.settled()  # and those who died are back everywhere

    asyncio.run(main())
