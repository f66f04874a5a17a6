"""What runs on other machines of the lab meanwhile: a coroutine in a thread of its own, or a relay of ours."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from integration.net_nat.lab import Place
from lading_net.direct import DirectTransport, Relay
from lading_net.peer import PeerId
from lading_protocol.keys import PrivateKey


class Thread:
    """Runs a coroutine on a machine of the lab; `result` waits for what it returns, or raises."""

    def __init__(self, place: Place, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._outcome: Any = None
        self._thread = threading.Thread(target=self._run, args=(place, work))
        self._thread.start()

    def _run(self, place: Place, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        place.enter()
        try:
            self._outcome = asyncio.run(work())
        except BaseException as error:
            self._outcome = error

    def result(self) -> Any:
        self._thread.join()
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return self._outcome


class Relaying:
    """A peer of ours that relays, and does whatever `opens` sets up on it, until closed."""

    def __init__(
        self, place: Place, address: str, secret: PrivateKey, opens: Callable[[DirectTransport], None]
    ) -> None:
        self.where = f"/ip4/{address}/tcp/4600/p2p/{PeerId.from_public_key(secret.public_key)}"
        self._key, self._opens = secret, opens
        self._up, self._done = threading.Event(), threading.Event()
        self._thread = Thread(place, self._serve)
        assert self._up.wait(10)

    async def _serve(self) -> None:
        transport = self.transport = DirectTransport(self._key)
        Relay(transport, lambda: (self.where,), time.time).open()
        self._opens(transport)
        await transport.listen(self.where)
        self._up.set()
        await asyncio.to_thread(self._done.wait)
        await transport.close()

    def close(self) -> None:
        self._done.set()
        self._thread.result()
