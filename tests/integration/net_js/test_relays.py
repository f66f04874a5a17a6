"""Our relay and js-libp2p's serve each other's peers: a job goes through either, also within a private network."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import pytest

from factories import key
from integration.net_js.pier import ANY_PORT, PAYER, converse, js_peer, node_program, pier
from lading_net.direct import DirectSettings, DirectTransport, Relay
from lading_net.private import NetworkKey

pytest.importorskip("libp2p")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]  # the other implementation's own


@pytest.fixture(scope="module")
def program() -> str:
    return node_program()


def given_to(name: str, network: NetworkKey | None, **more: Any) -> dict[str, Any]:
    return {"secret": key(name).secret.hex(), "network_key": network.text() if network is not None else "", **more}


networks = pytest.mark.parametrize("network", [None, NetworkKey(bytes(range(32)))], ids=["public", "private"])


@networks
@pytest.mark.parametrize("whose", ["ours", "theirs"])
def test_a_job_runs_through_a_relay(program: str, whose: str, network: NetworkKey | None) -> None:
    middle = DirectTransport(key("middle"), DirectSettings(network=network))
    relay = Relay(middle, lambda: (where,), time.time)
    where = ""

    async def story() -> None:
        try:
            await voyage()
        finally:
            await middle.close()

    async def voyage() -> None:
        nonlocal where
        if not where:
            relay.open()
            where = await middle.listen(ANY_PORT)
        async with pier(network) as (node, sea, wharf):
            host = next(one for one in wharf.transports if one.address == node.address)
            reservation = await host.reserve(await host.dial(where))
            assert reservation.expires > time.time() + 600
            said = await converse(node, sea, wharf, program, reservation.endpoints[0])
            met = said["identified"]
            assert (met["way"], met["limited"]) == (reservation.endpoints[0], True)
            assert "observed" not in met  # a relay stands between
            assert 32 < len(said["answered"]["ids"]) <= 70
            (channel,) = node.channels.all()
            assert channel.id.signer == PAYER.address
            async with asyncio.timeout(5):  # the last voucher may still be on its way
                while node.channels.all()[0].signed < int(said["answered"]["paid"]):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            assert node.channels.all()[0].earned == int(said["answered"]["paid"])

    with contextlib.ExitStack() as stack:
        if whose == "theirs":
            where, _ = stack.enter_context(js_peer(program, "relay.mjs", given_to("relay", network, listen=ANY_PORT)))
        asyncio.run(story())
