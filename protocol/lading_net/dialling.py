"""Reaching a peer that names several endpoints: the straight ways first, then those through relays, soon side by side.

The first link wins. Source: RFC 8305 (happy eyeballs), for a list of addresses of which some hang.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lading_net.errors import DialFailed, NetError, NetTimeout
from lading_net.ports import Link, Transport
from lading_protocol.ids import Address

STAGGER_SECONDS = 0.25
MOST = 8


async def dial_any(
    transport: Transport, endpoints: Sequence[str], expect: Address | None, patience: float = 5.0
) -> Link:
    """A link to the peer by whichever endpoint answers first within `patience` seconds.

    Each endpoint gets a head start over the next, until it fails. Raises NetError: that of the last one to fail.
    """
    waiting = sorted(dict.fromkeys(endpoints[:MOST]), key=lambda each: "/p2p-circuit/" in each)
    failure: NetError = DialFailed("It has no address and no link to us.")
    dials: set[asyncio.Task[Link]] = set()
    try:
        async with asyncio.timeout(patience):
            while waiting or dials:
                if waiting:
                    dials.add(asyncio.ensure_future(transport.dial(waiting.pop(0), expect)))
                done, dials = await asyncio.wait(
                    dials, timeout=STAGGER_SECONDS if waiting else None, return_when=asyncio.FIRST_COMPLETED
                )
                for dial in done:
                    error = dial.exception()
                    if error is None:
                        return dial.result()
                    if not isinstance(error, NetError):
                        raise error
                    failure = error
    except TimeoutError:
        raise NetTimeout(f"No address of the peer answered within {patience:g} s.") from None
    finally:
        for dial in dials:
            dial.cancel()
        await asyncio.gather(*dials, return_exceptions=True)
    raise failure
