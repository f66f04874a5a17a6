"""The coordinators that a publisher's command speaks to: which they are, and a link to each."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import httpx

from lading.blobs import BlobStore, serve_blobs
from lading.errors import GatewayError
from lading.routes.passage import root_of, unreachable
from lading.settings import Settings
from lading_net.ports import Link
from lading_protocol.keys import PrivateKey
from lading_protocol.messages import BLOB


@asynccontextmanager
async def linked(
    mine: PrivateKey,
    endpoint: str,
    store: BlobStore,
    sent: Callable[[int, int], None] = lambda done, total: None,
    network_key: str = "",
) -> AsyncIterator[Link]:
    """A link over which the coordinator may fetch from `store`. Raises NetError."""
    from lading_net import private
    from lading_net.direct import DirectSettings, DirectTransport

    transport = DirectTransport(mine, DirectSettings(network=private.network_key(network_key)))
    transport.handle(BLOB, serve_blobs(store, sent))
    try:
        yield await transport.dial(endpoint, None)
    finally:
        await transport.close()


async def endpoints(chosen: Settings, named: Sequence[str] | None) -> tuple[str, ...]:
    """Those that were named, or the one behind the base URL. Raises GatewayError."""
    if named:
        return tuple(named)
    root = root_of(chosen.base_url)
    try:
        async with httpx.AsyncClient(timeout=20) as http:
            answer = await http.get(f"{root}/lading/v1/network")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise unreachable(root, error) from error
    try:
        return (str(answer.json()["endpoints"][0]),)
    except (ValueError, LookupError, TypeError):
        raise GatewayError(f"The coordinator at {root} does not say where to publish.", hint="Say it: --to.") from None
