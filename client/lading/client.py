"""`lading.Client`: ask models through a coordinator, or peer to peer, with the same calls.

Through a coordinator it speaks the gateway's HTTP; peer to peer it runs the gateway's own dispatcher in this process.
"""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from lading.answers import Model, Piece, Vectors
from lading.core.options import Options
from lading_contracts.deployment import Deployment
from lading_protocol.keys import PrivateKey


class Route(Protocol):
    """One way to reach models. Both ways raise LadingError with the same codes."""

    async def models(self) -> list[Model]: ...

    def chat(self, model: str, messages: Sequence[tuple[str, str]], options: Options) -> AsyncIterator[Piece]: ...

    def call(self, model: str, operation: str, given: Any, max_tokens: int | None) -> AsyncIterator[Piece]: ...

    async def embed(self, model: str, inputs: Sequence[str]) -> Vectors: ...

    async def receipts(self, job: str) -> dict[str, Any]: ...

    async def close(self) -> None: ...


class Client:
    """Use as `async with`. Make one with `through` or `peer_to_peer`."""

    def __init__(self, route: Route) -> None:
        self._route = route

    @classmethod
    def through(cls, base_url: str, api_key: str, others: Sequence[tuple[str, str]] = ()) -> Self:
        """Ask a coordinator; its API key spends within the session that you authorised on chain.

        When it is gone in the middle of an answer, one of `others` (address, its own API key) goes on with it.
        """
        from lading.routes.gateway import GatewayRoute

        return cls(GatewayRoute(base_url, api_key, others))

    @classmethod
    async def peer_to_peer(
        cls,
        record: Deployment,
        chain_url: str,
        key: PrivateKey,
        peers: Sequence[str],
        home: Path,
        *,
        network_key: str = "",
    ) -> Self:
        """Ask hosts directly. `peers` are direct-link endpoints of any nodes or coordinators that know offers; or where
        anybody's control plane listens: then a model is named by its agent's id, and its hosts are looked for.

        `key` pays from its own deposit; signed vouchers are kept below `home`. `network_key` is the swarm key file of
        a private network. Raises NetError, ChainError.
        """
        from lading.routes.peers import PeerRoute

        return cls(await PeerRoute.open(record, chain_url, key, peers, home, network_key=network_key))

    async def models(self) -> list[Model]:
        """What is on offer, with the lowest price of each."""
        return await self._route.models()

    def chat(
        self, model: str, messages: Sequence[tuple[str, str]] | str, options: Options | None = None
    ) -> AsyncIterator[Piece]:
        """The answer as it comes, a Bill last. `messages` are (role, content) pairs, or the text of one user turn."""
        turns = [("user", messages)] if isinstance(messages, str) else list(messages)
        return self._route.chat(model, turns, options or Options())

    def call(self, model: str, operation: str, given: Any, max_tokens: int | None = None) -> AsyncIterator[Piece]:
        """Any other operation of an agent: `given` is JSON-like; the answer's text as it comes, a Bill last."""
        return self._route.call(model, operation, given, max_tokens)

    async def embed(self, model: str, inputs: Sequence[str]) -> Vectors:
        """One vector for each input."""
        return await self._route.embed(model, inputs)

    async def receipts(self, job: str) -> dict[str, Any]:
        """What the hosts signed for a job: write it to a file, and `lading receipt verify` checks it offline."""
        return await self._route.receipts(job)

    async def close(self) -> None:
        await self._route.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
