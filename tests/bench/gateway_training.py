"""Serves what most requests are with a build that counts, until it has counted enough: `python -m ... FOLDER`.

The build is that of tools/compiling. Its counts are written when a process ends by itself, so these do.
"""

import asyncio
import os
import sys

import uvloop

from .bench_gateway import CONNECTIONS, join
from .builds import Build
from .gateway_load import BODIES, connect
from .gateway_roles import role
from .processes import Program

OFFERS, ROUNDS, ASKS = 20_000, 30, 20


async def load(gate: Program) -> None:
    clients = await connect(gate.facts["http"], gate.facts["key"], CONNECTIONS)
    for _ in range(ROUNDS):
        for kind in BODIES:
            await asyncio.gather(*(client.repeat(kind, ASKS) for client in clients))
    for client in clients:
        client.hang_up()


def main() -> None:
    path = os.pathsep.join([sys.argv[1], *filter(None, [os.environ.get("PYTHONPATH")])])
    build = Build("counting", os.environ | {"PYTHONPATH": path})
    with role("upstream", {}, None, build) as up, role("gateway", {"offers": OFFERS}, None, build) as gate:
        join(up, gate)
        uvloop.run(load(gate))
        gate.end()
        up.end()


if __name__ == "__main__":
    main()
