"""Who has read the beginning of a prompt before, as far as our own routing tells: an approximate, bounded index.

A prompt is cut into blocks, each known by a hash that covers all before it, so that a block stands for a whole
beginning and "somebody has it" only ever ends once along a prompt: a bisection finds the end. Blocks grow along the
prompt, so that a megabyte takes 128 of them. Nothing here is proof: a host may have dropped what it read.
"""

from bisect import bisect_right
from collections import OrderedDict
from hashlib import blake2b
from struct import pack
from typing import Final

from lading_protocol.ids import Address, AgentId
from lading_protocol.messages import CallRequest, EmbedRequest, Request, RichChat

BLOCK: Final = 256
# After so many blocks of a size come as many of twice the size.
STEP: Final = 16
MOST_BLOCKS: Final = 128
MOST_KEPT: Final = 1 << 15
MOST_OWNERS: Final = 8


def _sizes() -> tuple[int, ...]:
    return tuple(BLOCK << (at // STEP) for at in range(MOST_BLOCKS))


def _reach() -> tuple[int, ...]:
    total, reach = 0, [0]
    for size in _sizes():
        total += size
        reach.append(total)
    return tuple(reach)


SIZES: Final = _sizes()
# REACH[n]: the bytes that n blocks cover.
REACH: Final = _reach()

Chain = tuple[bytes, ...]


def chain_of(agent: AgentId, request: Request) -> Chain:
    """The hashes of the prompt's whole blocks; what is left at its end is no block. Empty for what is never resumed."""
    text = _text(request)
    if len(text) < BLOCK:
        return ()
    hashes: list[bytes] = []
    state, at = agent, 0
    for size in SIZES:
        block = text[at : at + size]
        if len(block) < size:
            break
        state = AgentId(blake2b(state + block, digest_size=8).digest())
        hashes.append(state)
        at += size
    return tuple(hashes)


def _text(request: Request) -> bytes:
    if type(request) is CallRequest:
        return request.operation.encode() + b"\0" + request.input
    if type(request) is EmbedRequest:
        return b""
    said: list[str] = []
    for message in request.messages:
        said.append(message.role)
        said.append(message.content)
    said.append("")
    text = "\0".join(said).encode()
    if type(request) is not RichChat:
        return text
    prompt = request.prompt or ""
    # Tools are what markup writes first.
    return request.tools + (prompt.encode() if isinstance(prompt, str) else pack(f">{len(prompt)}I", *prompt)) + text


class Tenant:
    """A host for as long as it keeps its memory."""

    __slots__ = ("alive", "host")

    def __init__(self, host: Address) -> None:
        self.host = host
        self.alive = True


class PrefixIndex:
    """At most `limit` blocks; those that nobody asked for longest go first, and a block before those it builds on."""

    def __init__(self, limit: int = MOST_KEPT) -> None:
        self._limit = limit
        self._blocks: OrderedDict[bytes, dict[Tenant, None]] = OrderedDict()
        self._tenants: dict[Address, Tenant] = {}

    def __len__(self) -> int:
        return len(self._blocks)

    def note(self, chain: Chain, host: Address) -> None:
        """The host is about to read this prompt."""
        if not chain:
            return
        tenant = self._tenants.get(host)
        if tenant is None:
            tenant = self._tenants[host] = Tenant(host)
        blocks = self._blocks
        # From the end to the beginning: a block is never older than one that builds on it, so the oldest is a leaf.
        for block in reversed(chain):
            owners = blocks.get(block)
            if owners is None:
                owners = blocks[block] = {}
            else:
                blocks.move_to_end(block)
                owners.pop(tenant, None)
            owners[tenant] = None
            if len(owners) > MOST_OWNERS:
                del owners[next(iter(owners))]
        while len(blocks) > self._limit:
            blocks.popitem(last=False)

    def forget(self, host: Address) -> None:
        """The host came back, or is gone: what it had read is lost."""
        tenant = self._tenants.pop(host, None)
        if tenant is not None:
            tenant.alive = False

    def known(self, chain: Chain) -> int:
        """How many blocks from the first on anybody has read."""
        return bisect_right(chain, 0, key=lambda block: block not in self._blocks)

    def owners(self, chain: Chain) -> dict[Address, int]:
        """The hosts that read the most of it, and how many blocks each; the longest first, and few of them."""
        found: dict[Address, int] = {}
        for at in range(self.known(chain), 0, -1):
            for tenant in reversed(self._blocks[chain[at - 1]]):
                if tenant.alive and tenant.host not in found:
                    found[tenant.host] = at
            if len(found) >= MOST_OWNERS:
                break
        return found


def covered(blocks: int) -> int:
    """Bytes of the prompt in its first `blocks` blocks."""
    return REACH[blocks]
