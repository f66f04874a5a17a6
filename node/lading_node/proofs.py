"""Which receipts of other hosts count here as proof that a prompt is billed: those of operators with a stake that the
chain knows, each a few times. Owns what was asked of the chain and how often a proof was used."""

import asyncio
from collections.abc import Callable

from lading_contracts.deployment import Contracts
from lading_contracts.errors import ChainError
from lading_node.core.proof import Prompt, prompt_of, read_proof
from lading_protocol.ids import Address
from lading_protocol.messages import Open
from lading_protocol.offers import KnownOffer
from lading_protocol.transcript import sha256

# An answer may be refused for want of a slot, or be stopped for another, and come back; but not a thousand times.
MOST_USES = 4
MOST_KEPT = 65_536
# How long an operator's stake is believed in, and how long the chain has to say so.
STAKE_SECONDS = 600.0
ASK_SECONDS = 1.0


class Proofs:
    """`host` is this node's address: what it signed itself it knows without the chain."""

    def __init__(self, host: Address, contracts: Contracts, clock: Callable[[], float]) -> None:
        self._host = host
        self._contracts = contracts
        self._clock = clock
        self._staked: dict[Address, tuple[bool, float]] = {}
        self._uses: dict[bytes, int] = {}

    async def check(self, opening: Open, offer: KnownOffer) -> Prompt | None:
        """The prompt that the proof shows to be billed; None where there is none, or it does not count."""
        receipt = read_proof(opening, offer, self._contracts.deployment.court_domain, self._clock())
        if receipt is None or not await self._risks(Address(receipt.host)):
            return None
        name = sha256(opening.proof)
        uses = self._uses.pop(name, 0) + 1
        self._uses[name] = uses
        while len(self._uses) > MOST_KEPT:
            del self._uses[next(iter(self._uses))]
        return prompt_of(receipt) if uses <= MOST_USES else None

    async def _risks(self, host: Address) -> bool:
        """Whether the host has a stake: else anybody could be a host that signs for prompts it never read."""
        if host == self._host:
            return True
        staked, until = self._staked.get(host, (False, 0.0))
        if self._clock() < until:
            return staked
        try:
            async with asyncio.timeout(ASK_SECONDS):
                staked = await self._contracts.staking.is_active(host)
        except (ChainError, TimeoutError):
            return staked  # what it said last; of a host that it never spoke of, no
        while len(self._staked) >= MOST_KEPT:
            del self._staked[next(iter(self._staked))]
        self._staked[host] = staked, self._clock() + STAKE_SECONDS
        return staked
