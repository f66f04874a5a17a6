"""The demo's accounts: what each party owns, and whether every wei is somewhere, rebuilt from the contracts' events."""

import msgspec

from lading_contracts import books, events
from lading_contracts.deployment import Contracts
from lading_contracts.follower import Cursor, Follower
from lading_contracts.registry import Party
from lading_protocol.ids import Address, AgentId, Digest, TermsId


class Estate(msgspec.Struct, frozen=True):
    """All that belongs to one address, in wei. `deposit` includes what is locked for hosts and not yet redeemed."""

    coins: int
    deposit: int
    earned: int
    royalties: int
    stake: int

    @property
    def total(self) -> int:
        return self.coins + self.deposit + self.earned + self.royalties + self.stake


class Books:
    """The network's books, and what the scenes want to tell about how it came to them."""

    def __init__(self, contracts: Contracts) -> None:
        self._contracts = contracts
        self._books = books.Books(contracts.deployment.names())
        self._cursor = Cursor(start=contracts.deployment.block)
        self.terms: dict[TermsId, tuple[AgentId, tuple[Party, ...]]] = {}
        self.slashes: list[events.Slashed] = []
        self.rulings: list[events.Executed] = []
        self.batches: list[events.Redeemed] = []
        self.accused: dict[Digest, Address] = {}
        self.votes: list[events.Revealed] = []

    async def read(self) -> None:
        """From the first block on, as anyone could; goes on where it left off."""
        follower = Follower(self._contracts.chain, self._contracts.deployment.names())
        while (batch := await follower.step(self._cursor)) is not None:
            self._cursor = batch.cursor
            self._books.apply(batch)
            for entry in batch.entries:
                self._note(entry.event)

    def _note(self, event: events.Event) -> None:
        match event:
            case events.TermsAgreed(id=terms, agent=agent, parties=parties):
                self.terms[terms] = (agent, parties)
            case events.Redeemed():
                self.batches.append(event)
            case events.Slashed():
                self.slashes.append(event)
            case events.Opened(id=dispute, host=host):
                self.accused[dispute] = host
            case events.Revealed():
                self.votes.append(event)
            case events.Executed():
                self.rulings.append(event)
            case _:
                pass

    async def estate(self, who: Address) -> Estate:
        """From events, but for what they do not say: how much exactly is left in a channel that shares its batches."""
        known = self._books.estate(who)
        locked = 0
        for key, record in self._books.settlement.channels.items():
            if record.payer == who:
                channel = await self._contracts.settlement.channel(key)
                locked += channel.locked - channel.redeemed
        staked = known.staked + known.sureties
        return Estate(known.coins, known.free + locked, known.earned, known.royalties, staked)

    def holdings(self) -> tuple[books.Holding, ...]:
        """For each contract that holds coins: its balance, and the sum of all claims on it."""
        return self._books.holdings()
