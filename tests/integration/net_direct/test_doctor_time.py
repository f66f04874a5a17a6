"""`lading node doctor` on a machine whose clock is off: the coordinators that it asks say so."""

import asyncio
import re
import time

from factories import key
from lading.clockwatch import Clockwatch
from lading_net.direct import DirectTransport
from lading_net.speech import serve_speech
from lading_node.doctor import Diagnosis, Looked, look

ANY_PORT = "/ip4/127.0.0.1/tcp/0"


async def diagnosis(ahead: float) -> Diagnosis:
    coordinator = DirectTransport(key("coordinator"))
    endpoint = await coordinator.listen(ANY_PORT)
    serve_speech(coordinator, clock=Clockwatch(time.time, lambda peer: True, 3, "hosts"))
    try:
        asked = Looked((ANY_PORT,), (), (endpoint,), "127.0.0.1", False, None, lambda: time.time() + ahead)
        return await look(asked)
    finally:
        await coordinator.close()


def test_the_doctor_compares_clocks() -> None:
    found = asyncio.run(diagnosis(300.0))
    assert re.match(r"By the clocks of 1 of 1 coordinators it is 30[01] s earlier than by this machine's", found.clock)
    assert asyncio.run(diagnosis(10.0)).clock == ""
