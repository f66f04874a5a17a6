"""Deposits, sessions, channels, pools and host balances, from Settlement's events.

One thing no event says: which channels of a batch a redemption took from. All else is exact to the wei. See `Range`.
"""

import msgspec
from msgspec.structs import replace

from lading_contracts import events
from lading_contracts.ledgers.journal import Amounts, Journal, Ledger
from lading_contracts.registry import Party
from lading_contracts.settlement import Account, Batch, ChannelKey, Session
from lading_protocol.ids import ZERO_ADDRESS, Address, TermsId, Wei

_WHOLE_BPS = 10_000
_NO_ACCOUNT = Account(Wei(0), Wei(0), 0)


class Range(msgspec.Struct, frozen=True):
    """Wei between two bounds; equal unless others have open channels with the same host, terms and epoch, too."""

    least: int
    most: int

    def __add__(self, other: "Range") -> "Range":
        return Range(self.least + other.least, self.most + other.most)


class ChannelRecord(msgspec.Struct, frozen=True):
    """A channel as far as events tell: all but how much of `locked` was redeemed before it closed."""

    payer: Address = Address(ZERO_ADDRESS)
    locked: int = 0
    closes_at: int = 0
    via_session: bool = False
    dead: bool = False


class Pool(msgspec.Struct, frozen=True):
    """What was ever redeemed under some terms, and the parties' part of it."""

    gross: int = 0
    earned: int = 0


class SettlementLedger:
    def __init__(self, journal: Journal) -> None:
        self.accounts: Ledger[Address, Account] = Ledger(journal, _NO_ACCOUNT)
        self.sessions: Ledger[Address, Session | None] = Ledger(journal, None)
        self.channels: Ledger[ChannelKey, ChannelRecord] = Ledger(journal, ChannelRecord())
        self.outstanding: Amounts[Batch] = Amounts(journal)
        """Locked and not redeemed, of all open channels of the batch together."""
        self.locked: Amounts[Batch] = Amounts(journal)
        """The locks of the batch's open channels, whatever was redeemed of them."""
        self.tables: Ledger[TermsId, tuple[Party, ...]] = Ledger(journal, ())
        self.pools: Ledger[TermsId, Pool] = Ledger(journal, Pool())
        self.claimed: Amounts[tuple[TermsId, int]] = Amounts(journal)
        self.hosts: Amounts[Address] = Amounts(journal)
        self.payouts: Ledger[Address, Address] = Ledger(journal, Address(ZERO_ADDRESS))

    def note(self, event: events.Event) -> None:
        match event:
            case events.TermsAgreed(id=terms, parties=parties):
                self.tables[terms] = parties
            case events.Deposited(payer=payer, amount=amount):
                self._add_free(payer, amount)
            case events.ExitRequested(payer=payer, amount=amount, exit_at=exit_at):
                self.accounts[payer] = replace(self.accounts[payer], exit_amount=amount, exit_at=exit_at)
            case events.Exited(payer=payer, amount=amount):
                self.accounts[payer] = Account(Wei(self.accounts[payer].free - amount), Wei(0), 0)
            case events.Authorized(payer=payer, key=key, cap=cap, expiry=expiry):
                known = self.sessions[key] or Session(payer, Wei(0), Wei(0), 0)
                self.sessions[key] = replace(known, cap=cap, expiry=expiry)
            case events.Revoked(key=key):
                if (session := self.sessions[key]) is not None:
                    self.sessions[key] = replace(session, expiry=0)
            case events.Locked():
                self._lock(event)
            case events.Redeemed():
                self._redeem(event)
            case events.CloseStarted(signer=signer, host=host, terms=terms, epoch=epoch, closes_at=closes_at):
                channel = ChannelKey(signer, host, terms, epoch)
                self.channels[channel] = replace(self.channels[channel], closes_at=closes_at)
            case events.Closed():
                self._close(event)
            case events.Claimed(terms=terms, k=k, amount=amount):
                self.claimed.add((terms, k), amount)
            case events.PayoutSet(host=host, payout=payout):
                self.payouts[host] = payout
            case events.Withdrawn(host=host, amount=amount):
                self.hosts.add(host, -amount)
            case _:
                pass

    # --- questions ---

    def payout_of(self, host: Address) -> Address:
        payout = self.payouts[host]
        return payout if any(payout) else host

    def outstanding_of(self, channel: ChannelKey) -> Range:
        """What is still locked in one channel."""
        record = self.channels[channel]
        if record.dead:
            return Range(0, 0)
        return self._share(Batch(channel.host, channel.terms, channel.epoch), record.locked)

    def at_hosts(self, payer: Address) -> Range:
        """What the payer has in open channels, its own and its sessions'. Exact if it is alone in its batches."""
        locked: dict[Batch, int] = {}
        for key, record in self.channels.items():
            if record.payer == payer and not record.dead:
                batch = Batch(key.host, key.terms, key.epoch)
                locked[batch] = locked.get(batch, 0) + record.locked
        return sum((self._share(batch, amount) for batch, amount in locked.items()), Range(0, 0))

    def claimable(self, terms: TermsId, k: int) -> int:
        """Party 0's share of what the pool has ever earned is rounded up, the others' down; less what it claimed."""
        parties = self.tables[terms]
        weighted, whole = self.pools[terms].earned * parties[k].bps, sum(party.bps for party in parties)
        entitled = -(-weighted // whole) if k == 0 else weighted // whole
        return entitled - self.claimed[terms, k]

    def royalties_of(self, payee: Address) -> int:
        """What the party may claim, over all tables."""
        return sum(
            self.claimable(terms, k)
            for terms, parties in self.tables.items()
            for k, party in enumerate(parties)
            if party.payee == payee
        )

    def owed(self) -> int:
        """All that Settlement must hold."""
        free = sum(account.free for account in self.accounts.values())
        pools = sum(pool.earned for pool in self.pools.values()) - self.claimed.total()
        return free + self.outstanding.total() + pools + self.hosts.total()

    # --- inside ---

    def _add_free(self, payer: Address, amount: int) -> None:
        account = self.accounts[payer]
        self.accounts[payer] = replace(account, free=Wei(account.free + amount))

    def _add_session(self, key: Address, amount: int) -> None:
        if (session := self.sessions[key]) is not None:
            self.sessions[key] = replace(session, locked=Wei(session.locked + amount))

    def _share(self, batch: Batch, locked: int) -> Range:
        """How much of the batch's outstanding money lies in channels that locked `locked` of it together."""
        outstanding, others = self.outstanding[batch], self.locked[batch] - locked
        return Range(max(0, outstanding - others), min(outstanding, locked))

    def _lock(self, event: events.Locked) -> None:
        key = ChannelKey(event.signer, event.host, event.terms, event.epoch)
        record = self.channels[key]
        if not record.locked:  # the first lock decides whose money the channel is made of
            session = self.sessions[event.signer]
            via = session is not None
            record = ChannelRecord(session.payer if session is not None else event.signer, via_session=via)
        moved = event.locked - record.locked
        self.channels[key] = replace(record, locked=event.locked)
        self._add_free(record.payer, -moved)
        if record.via_session:
            self._add_session(event.signer, moved)
        batch = Batch(event.host, event.terms, event.epoch)
        self.outstanding.add(batch, moved)
        self.locked.add(batch, moved)

    def _redeem(self, event: events.Redeemed) -> None:
        total = event.host_amount + event.royalty
        self.outstanding.add(Batch(event.host, event.terms, event.epoch), -total)
        pool = self.pools[event.terms]
        self.pools[event.terms] = Pool(pool.gross + total, pool.earned + event.royalty)
        self.hosts.add(event.host, event.host_amount)

    def _close(self, event: events.Closed) -> None:
        key = ChannelKey(event.signer, event.host, event.terms, event.epoch)
        batch = Batch(event.host, event.terms, event.epoch)
        record = self.channels[key]
        self.channels[key] = replace(record, locked=record.locked - event.returned, dead=True)
        self.locked.add(batch, -record.locked)
        self.outstanding.add(batch, -event.returned)
        self._add_free(event.payer, event.returned)
        if record.via_session:
            self._add_session(event.signer, -event.returned)
