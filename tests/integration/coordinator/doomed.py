"""A coordinator in a process of its own, to be killed: over real sockets, with a chain in its memory.

`python doomed.py FOLDER CAP [API_KEY [NAME]]` prints one JSON line that says where it is reached and what it has signed
so far, and serves until it is killed. The chain is a new one each time; what must last is what lies in the folder.
"""

import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path

import uvloop

from integration.coordinator.town import Town
from lading_coordinator.errors import ApiError
from lading_protocol.ids import to_hex
from lading_protocol.receipts import SessionConsent


async def main(folder: Path, cap: int, api_key: str = "", name: str = "coordinator") -> None:
    town = Town(folder)
    town.name = name
    await town.build()
    sessions, settlement = town.coordinator.sessions, town.contracts.settlement
    if not api_key:
        api_key = sessions.create(town.payer.address).api_key
    seat = await sessions.seat(api_key)
    await town.contracts.coin.approve(town.payer, town.record.settlement, 10**20)
    await settlement.deposit(town.payer, 10**20)
    consent = SessionConsent(town.payer.address).sign(town.record.settlement_domain, seat.key).signature
    await settlement.authorize(town.payer, seat.key.address, cap, int(time.time()) + 3600, consent)
    serving = asyncio.create_task(town.coordinator.serve())
    await town.coordinator.ready.wait()
    for _ in range(100):
        with contextlib.suppress(ApiError):  # until it has heard of the authorization
            await sessions.admit(api_key)
            break
        await asyncio.sleep(0.05)
    purse = town.coordinator.purse
    channels = {
        to_hex(key.host): [str(held.cumulative), str(held.locked)] for key, held in purse.channels(seat.key.address)
    }
    told = {
        "http": town.url,
        "endpoint": town.endpoint,
        "api_key": api_key,
        "signer": to_hex(seat.key.address),
        "locked": str(purse.locked(seat.key.address)),
        "channels": channels,
        "agent": to_hex(town.agent),
        "terms": to_hex(town.terms),
        "record": town.record.encode().decode(),
    }
    print(json.dumps(told), flush=True)
    await serving


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
