"""A JSON-RPC transport that misbehaves on demand, in front of the real EVM."""

from collections.abc import Callable
from typing import Any

from lading_contracts.embedded.server import faucet_key
from lading_contracts.errors import ChainUnreachable
from lading_contracts.rpc import RpcSettings
from lading_contracts.transports import Answer, InProcess
from lading_protocol.keys import PrivateKey

HASH = "0x" + "77" * 32
CHAIN_ID = 31_339
FAUCET = faucet_key("lading")
BOB = PrivateKey(b"\x0b" * 32).address
QUICK = RpcSettings(attempts=3, backoff=0.0, poll=0.001, inclusion_timeout=0.2, raise_fees_after=0.05)
# For a virtual clock.
SLOW = RpcSettings(attempts=3, backoff=1.0, inclusion_timeout=60.0, raise_fees_after=15.0, sure_after=20.0, poll=2.0)

Trick = Callable[[str, list[Any]], Answer | None]


class Crooked:
    """A transport in front of the real one: `before` may answer instead of it, `after` may lose an answer."""

    def __init__(self, inner: InProcess) -> None:
        self._inner = inner
        self.before: Trick = lambda _method, _params: None
        self.after: Callable[[str], None] = lambda _method: None
        self.asked: list[str] = []
        self.sent: list[str] = []

    async def request(self, method: str, params: list[Any]) -> Answer:
        self.asked.append(method)
        if method == "eth_sendRawTransaction":
            self.sent.append(params[0])
        instead = self.before(method, params)
        if instead is not None:
            return instead
        answer = await self._inner.request(method, params)
        self.after(method)
        return answer

    async def close(self) -> None:
        await self._inner.close()


def lose_once(line: Crooked, method: str) -> None:
    lost: list[str] = []

    def after(asked: str) -> None:
        if asked == method and not lost:
            lost.append(asked)
            raise ChainUnreachable("The answer was lost.")

    line.after = after
