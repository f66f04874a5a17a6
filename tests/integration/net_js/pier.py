"""A real node on real sockets for a client in another language; the chain is the fake one, the engine the toy."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

from factories import key
from lading_net.direct import DirectSettings, DirectTransport
from lading_net.gossip import MeshGossip
from lading_net.memory import MemoryNetwork
from lading_net.private import NetworkKey
from lading_node.node import Node
from lading_protocol.ids import to_hex
from lading_protocol.keys import PrivateKey
from lading_protocol.messages import TOPIC_OFFERS, encode
from simulation.node_world import Sea
from tools import missing

CLIENT = Path(__file__).parent / "client"
ANY_PORT = "/ip4/127.0.0.1/tcp/0"
PAYER = key("javascript payer")
_ANSWERS = 45.0


def node_program() -> str:
    """Node.js, with the client's packages installed the first time."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        missing("Node.js 20 is not installed, so there is no other implementation to talk to")
    if not _installed():
        install = [npm, "install", "--no-audit", "--no-fund", "--no-package-lock"]
        done = subprocess.run(install, cwd=CLIENT, capture_output=True, text=True, check=False)
        if done.returncode:
            missing(f"the packages of the JavaScript client cannot be installed: {done.stderr[-400:]}")
    return node


def _installed() -> bool:
    """Whether every package is there in the version that is pinned."""
    for name, version in json.loads((CLIENT / "package.json").read_text())["dependencies"].items():
        about = CLIENT / "node_modules" / name / "package.json"
        if not about.exists() or json.loads(about.read_text())["version"] != version:
            return False
    return True


@contextlib.contextmanager
def js_peer(
    node: str, program: str, given: dict[str, Any], *before: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A program of the client's folder that runs until the block ends, and where it says that it listens."""
    pipe = subprocess.PIPE
    with subprocess.Popen([*before, node, program], cwd=CLIENT, stdin=pipe, stdout=pipe, text=True) as running:
        try:
            assert running.stdin is not None
            assert running.stdout is not None
            running.stdin.write(json.dumps(given))
            running.stdin.close()
            yield json.loads(running.stdout.readline())["endpoint"], running
        finally:
            running.kill()


class Wharf:
    """What a Sea asks of its network, over sockets."""

    def __init__(self, network: NetworkKey | None) -> None:
        self.network = network
        self.transports: list[DirectTransport] = []
        self.gossips: dict[str, MeshGossip] = {}

    async def gather(self, *names: str) -> None:
        """Brings up control planes that know the first of them."""
        for name in names:
            known = [one.address for one in self.gossips.values()][:1]
            self.gossips[name] = made = MeshGossip(key(name), ANY_PORT, known, network=self.network)
            await made.start()

    def transport(self, who: PrivateKey) -> DirectTransport:
        self.transports.append(DirectTransport(who, DirectSettings(network=self.network)))
        return self.transports[-1]

    def gossip(self, who: PrivateKey) -> MeshGossip | None:
        return next((one for name, one in self.gossips.items() if key(name).address == who.address), None)

    async def close(self) -> None:
        await asyncio.gather(*(one.close() for one in self.transports), *(one.close() for one in self.gossips.values()))


class Pier(Sea):
    now = staticmethod(time.time)


@contextlib.asynccontextmanager
async def pier(network: NetworkKey | None = None, *names: str) -> AsyncIterator[tuple[Node, Pier, Wharf]]:
    """A node called amber; `names` are those of its control plane and of others."""
    wharf = Wharf(network)
    await wharf.gather(*names)
    sea = cast(Pier, await Pier.create(block_time=0.0))
    sea.network = cast(MemoryNetwork, wharf)
    await sea.fund(PAYER)
    node = sea.node("amber", listen=(ANY_PORT,), token_delay=0.001, redeem_at_stop=False, chain_poll=0.2)
    running = asyncio.create_task(node.run())
    try:
        await asyncio.wait_for(node.started.wait(), 20)
        async with asyncio.timeout(20):
            while not node.presence.adverts():  # noqa: ASYNC110  # its agent is being fetched
                await asyncio.sleep(0.02)
        yield node, sea, wharf
    finally:
        node.stop()
        await asyncio.wait_for(running, 20)
        await wharf.close()


async def keep_advertising(node: Node, gossip: MeshGossip) -> None:
    """A node does so every five minutes; a client that has just come should not wait for it."""
    while True:
        for advert in node.presence.adverts():
            await gossip.publish(TOPIC_OFFERS, encode(advert))
        await asyncio.sleep(0.3)


async def converse(node: Node, sea: Sea, wharf: Wharf, program: str, way: str = "") -> dict[str, Any]:
    """Runs the client to its end; what it said, by kind. It calls the node by `way`, or directly."""
    gossips = list(wharf.gossips.values())
    given = {
        "direct": way or node.endpoints[0],
        "gossip": gossips[0].address if gossips else "",
        "far": str(gossips[-1].peer_id) if gossips else "",
        "secret": PAYER.secret.hex(),
        "network_key": wharf.network.text() if wharf.network is not None else "",
        "chain_id": sea.record.chain_id,
        "settlement": to_hex(sea.record.settlement),
        "court": to_hex(sea.record.court),
    }
    telling = asyncio.create_task(keep_advertising(node, gossips[0])) if gossips else None
    pipe = asyncio.subprocess.PIPE
    client = await asyncio.create_subprocess_exec(
        program, "client.mjs", cwd=CLIENT, stdin=pipe, stdout=pipe, stderr=pipe
    )
    too_late = asyncio.get_running_loop().call_later(_ANSWERS, client.kill)
    try:
        out, errors = await client.communicate(json.dumps(given).encode())
    finally:
        too_late.cancel()
        if telling is not None:
            telling.cancel()
    said = [json.loads(line) for line in out.decode().splitlines()]
    assert client.returncode == 0, f"{said}\n{errors.decode()[-3000:]}"
    return {each.pop("what"): each for each in said}
