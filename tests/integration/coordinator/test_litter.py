"""A request leaves no cycles behind: all of it is gone when it is over, and the collector, which stops every stream for
milliseconds while it looks, has nothing to find."""

import asyncio
import collections
import gc
from pathlib import Path

import httpx
import pytest
import uvloop

from integration.coordinator.town import town

ASKED = 24


@pytest.mark.parametrize(("stream", "kept"), [(False, True), (True, True), (False, False)])
def test_a_request_leaves_nothing_for_the_collector(stream: bool, kept: bool, tmp_path: Path) -> None:
    """`kept`: on a connection that stays."""

    async def story() -> collections.Counter[str]:
        async with town(tmp_path) as made:
            await made.host("host")
            body = {"model": "storyteller", "messages": [{"role": "user", "content": "tell me"}], "stream": stream}
            head = {"authorization": f"Bearer {await made.session()}"} | ({} if kept else {"connection": "close"})
            async with httpx.AsyncClient(base_url=made.url, headers=head) as client:

                async def ask(times: int) -> None:
                    for _ in range(times):
                        (await client.post("/v1/chat/completions", json=body)).raise_for_status()

                await asyncio.gather(*(ask(2) for _ in range(4)))
                await asyncio.sleep(0.2)
                gc.collect()
                gc.set_debug(gc.DEBUG_SAVEALL)
                await asyncio.gather(*(ask(ASKED // 4) for _ in range(4)))
                await asyncio.sleep(0.5)  # signatures, vouchers and the ledger
                await made.coordinator.ledger.flush()
                gc.collect()
                return collections.Counter(
                    type(one).__qualname__ for one in gc.garbage if type(one).__module__.startswith("lading")
                )

    was = gc.isenabled()
    gc.disable()
    try:
        litter = uvloop.run(story())
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        (gc.enable if was else gc.disable)()
    assert {name: count for name, count in litter.items() if count >= ASKED // 2} == {}
