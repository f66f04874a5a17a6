"""What the chain's events say about one address: channels, sessions, tables, stakes.

Read from the first block on, once a command. Only names things; what they hold now is asked of the contracts.
"""

from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

import msgspec

from lading_contracts import events
from lading_contracts.deployment import Contracts
from lading_contracts.follower import Cursor, Follower, Following
from lading_contracts.registry import Party
from lading_contracts.settlement import ChannelKey
from lading_protocol.ids import Address, AgentId, TermsId

T = TypeVar("T")
_SPAN = 10_000


class Table(msgspec.Struct, frozen=True):
    """A split table that was agreed on chain."""

    terms: TermsId
    agent: AgentId
    parties: tuple[Party, ...]


class History(msgspec.Struct):
    """Everything that names `who`. `payouts` are hosts whose money goes to it, itself among them if it is one."""

    who: Address
    sessions: list[Address] = []
    channels: list[ChannelKey] = []
    tables: list[Table] = []
    hosts: list[Address] = []
    payouts: list[Address] = []
    operators: list[Address] = []

    def note(self, event: events.Event) -> None:
        match event:
            case events.Authorized(payer=self.who, key=key):
                _add(self.sessions, key)
            case events.Locked(signer=signer, host=host, terms=terms, epoch=epoch):
                if signer == self.who or signer in self.sessions:
                    _add(self.channels, ChannelKey(signer, host, terms, epoch))
            case events.TermsAgreed(id=terms, agent=agent, parties=parties):
                if any(party.payee == self.who for party in parties):
                    self.tables.append(Table(terms, agent, parties))
            case events.Redeemed(host=self.who):
                _add(self.hosts, self.who)
            case events.PayoutSet(host=host, payout=payout):
                if payout == self.who:
                    _add(self.payouts, host)
                elif host in self.payouts:
                    self.payouts.remove(host)
            case events.Staked(operator=operator, owner=self.who):
                _add(self.operators, operator)
            case _:
                pass


async def read(contracts: Contracts, who: Address) -> History:
    """Raises ChainError."""
    record = contracts.deployment
    history = History(who)
    async for event in past(contracts, (record.registry, record.settlement, record.staking)):
        history.note(event)
    return history


async def past(contracts: Contracts, sources: Sequence[Address]) -> AsyncIterator[events.Event]:
    """Every event of these contracts up to the present, in order. Raises ChainError."""
    names = {where: name for where, name in contracts.deployment.names().items() if where in sources}
    follower = Follower(contracts.chain, names, Following(span=_SPAN))
    cursor = Cursor(contracts.deployment.block)
    while (batch := await follower.step(cursor)) is not None:
        cursor = batch.cursor
        for entry in batch.entries:
            yield entry.event


def _add(known: list[T], one: T) -> None:
    if one not in known:
        known.append(one)
