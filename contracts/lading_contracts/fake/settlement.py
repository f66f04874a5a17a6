"""Settlement in memory: channels, vouchers, split pools. The contract's checks in its order."""

from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from lading_contracts.fake.deposits import DepositsModel
from lading_contracts.fake.lineage import Table
from lading_contracts.fake.registry import WHOLE_BPS, RegistryModel, table_id
from lading_contracts.fake.world import Book, World, require
from lading_contracts.settlement import Channel, ChannelKey
from lading_protocol.errors import BadSignature
from lading_protocol.ids import ZERO_ADDRESS, Address, TermsId, Wei
from lading_protocol.keys import recover
from lading_protocol.receipts import ROW_SIZE, Lock, Offer, Voucher, unpack_row

_MAX_DELAY = 90 * 86_400
_NO_CHANNEL = Channel(Wei(0), Wei(0), 0, False, False)


class SettlementModel(DepositsModel):
    def __init__(self, world: World, address: Address, sender: Address, *given: Any) -> None:
        coin, registry, exit_delay, self._close_delay = given
        require(any(coin) and any(registry), "ZeroAddress")
        require(max(exit_delay, self._close_delay) <= _MAX_DELAY, "DelayTooLong")
        super().__init__(world, address, coin, exit_delay)
        self._registry: RegistryModel = world.contracts[registry]
        self._channels: Book[bytes, Channel] = Book(world, _NO_CHANNEL)
        self._host_balance: Book[Address, int] = Book(world, 0)
        self._payout: Book[Address, Address] = Book(world, ZERO_ADDRESS)
        self._gross: Book[bytes, int] = Book(world, 0)
        self._claimed: Book[tuple[bytes, int], int] = Book(world, 0)

    # --- channels ---

    def start_close(self, sender: Address, signer: Address, host: Address, terms: bytes, epoch: int) -> None:
        key = ChannelKey(signer, host, TermsId(terms), epoch).id
        channel = self._channels[key]
        require(channel.locked != 0 and channel.closes_at == 0, "NotClosable")
        payer = self._sessions[signer].payer if channel.via_session else signer
        require(payer == sender, "NotPayer", sender)
        closes_at = self.world.now + self._close_delay
        self._channels[key] = replace(channel, closes_at=closes_at)
        self.emit("CloseStarted", signer, host, terms, epoch, closes_at)

    def finish_close(self, sender: Address, signer: Address, host: Address, terms: bytes, epoch: int) -> None:
        key = ChannelKey(signer, host, TermsId(terms), epoch).id
        channel = self._channels[key]
        require(channel.closes_at != 0 and not channel.dead, "NotClosing")
        require(self.world.now >= channel.closes_at, "TooEarly", channel.closes_at)
        rest = channel.locked - channel.redeemed
        self._channels[key] = replace(channel, locked=channel.redeemed, dead=True)
        payer = signer
        if channel.via_session:
            session = self._sessions[signer]
            payer = session.payer
            self._sessions[signer] = replace(session, locked=Wei(session.locked - rest))
        self._add_free(payer, rest)
        self.emit("Closed", signer, host, terms, epoch, payer, rest)

    # --- the host's side ---

    def lock(self, sender: Address, host: Address, terms: bytes, epoch: int, rows: bytes) -> None:
        require(self._registry.is_open(sender, terms), "TermsClosed", terms)
        require(self._lock(host, terms, epoch, rows) != 0, "NoProgress")

    def redeem(self, sender: Address, host: Address, terms: bytes, epoch: int, rows: bytes) -> None:
        require(self._redeem(host, terms, epoch, rows) != 0, "NoProgress")

    def lock_and_redeem(
        self, sender: Address, host: Address, terms: bytes, epoch: int, locks: bytes, vouchers: bytes
    ) -> None:
        _check_rows(locks)
        moved = self._lock(host, terms, epoch, locks) if self._registry.is_open(sender, terms) else 0
        moved += self._redeem(host, terms, epoch, vouchers)
        require(moved != 0, "NoProgress")

    def set_payout(self, sender: Address, host: Address, payout: Address) -> None:
        require(payout != ZERO_ADDRESS, "ZeroAddress")
        require(self.payout_of(sender, host) == sender, "NotPayout", sender)
        self._payout[host] = payout
        self.emit("PayoutSet", host, payout)

    def withdraw(self, sender: Address, host: Address) -> None:
        amount = self._host_balance[host]
        require(amount != 0, "NothingDue")
        payout = self.payout_of(sender, host)
        self._host_balance[host] = 0
        self.emit("Withdrawn", host, payout, amount)
        self._coin.transfer(self.address, payout, amount)

    # --- the parties' side ---

    def claim(self, sender: Address, agent: bytes, parties: Table, k: int) -> None:
        require(k < len(parties), "WrongParty", k)
        amount = self._take(agent, parties, k)
        require(amount != 0, "NothingDue")
        self._coin.transfer(self.address, parties[k][0], amount)

    def claim_many(self, sender: Address, payee: Address, shares: tuple[tuple[bytes, Table, int], ...]) -> None:
        amount = 0
        for agent, parties, k in shares:
            require(k < len(parties) and parties[k][0] == payee, "WrongParty", k)
            amount += self._take(agent, parties, k)
        require(amount != 0, "NothingDue")
        self._coin.transfer(self.address, payee, amount)

    # --- views ---

    def channels(self, _sender: Address, key: bytes) -> tuple[Any, ...]:
        channel = self._channels[key]
        return channel.locked, channel.redeemed, channel.closes_at, channel.via_session, channel.dead

    def host_balance(self, _sender: Address, host: Address) -> int:
        return self._host_balance[host]

    def payout_of(self, _sender: Address, host: Address) -> Address:
        payout = self._payout[host]
        return host if payout == ZERO_ADDRESS else payout

    def earned(self, _sender: Address, terms: bytes) -> int:
        return self._gross[terms] * self._registry.royalty_bps(terms) // WHOLE_BPS

    def gross(self, _sender: Address, terms: bytes) -> int:
        return self._gross[terms]

    def claimed(self, _sender: Address, terms: bytes, k: int) -> int:
        return self._claimed[terms, k]

    def claimable(self, _sender: Address, agent: bytes, parties: Table, k: int) -> int:
        require(k < len(parties), "WrongParty", k)
        terms = table_id(agent, parties)
        return self._entitled(terms, parties[k][2], k) - self._claimed[terms, k]

    def registry(self, _sender: Address) -> Address:
        return self._registry.address

    def channel_id(self, _sender: Address, *named: Any) -> bytes:
        return ChannelKey(*named).id

    def voucher_digest(self, _sender: Address, *fields: Any) -> bytes:
        return Voucher(*fields).digest(self._domain)

    def lock_digest(self, _sender: Address, *fields: Any) -> bytes:
        return Lock(*fields).digest(self._domain)

    def offer_digest(self, _sender: Address, fields: tuple[Any, ...]) -> bytes:
        return Offer(*fields).digest(self._domain)

    def close_delay(self, _sender: Address) -> int:
        return int(self._close_delay)

    # --- inside ---

    def _rows(
        self, kind: type[Voucher] | type[Lock], host: Address, terms: bytes, epoch: int, rows: bytes
    ) -> Iterator[tuple[Address, int, bytes]]:
        """(signer, cumulative, channel id) of every row that somebody signed."""
        for at in range(0, len(rows), ROW_SIZE):
            cumulative, signature = unpack_row(rows[at : at + ROW_SIZE])
            digest = kind(host, terms, epoch, cumulative).digest(self._domain)
            try:
                signer = recover(digest, signature)
            except BadSignature:
                continue
            yield signer, cumulative, ChannelKey(signer, host, TermsId(terms), epoch).id

    def _lock(self, host: Address, terms: bytes, epoch: int, rows: bytes) -> int:
        _check_rows(rows)
        moved = 0
        for signer, cumulative, key in self._rows(Lock, host, terms, epoch, rows):
            total = self._move_to_channel(signer, cumulative, key)
            if total:
                self.emit("Locked", signer, host, terms, epoch, total)
                moved += 1
        return moved

    def _move_to_channel(self, signer: Address, cumulative: int, key: bytes) -> int:
        """The channel's new lock, or zero if the row moves nothing."""
        channel = self._channels[key]
        session = self._sessions[signer]
        via_session = session.payer != ZERO_ADDRESS
        payer = session.payer if via_session else signer
        mixed = channel.locked != 0 and channel.via_session != via_session
        if channel.dead or cumulative <= channel.locked or mixed:
            return 0
        amount = min(cumulative - channel.locked, self._accounts[payer].free)
        if via_session:
            open_ = self.world.now < session.expiry
            amount = min(amount, max(0, session.cap - session.locked)) if open_ else 0
            self._sessions[signer] = replace(session, locked=Wei(session.locked + amount))
        if amount == 0:
            return 0
        self._add_free(payer, -amount)
        total = Wei(channel.locked + amount)
        self._channels[key] = replace(channel, locked=total, via_session=via_session)
        return total

    def _redeem(self, host: Address, terms: bytes, epoch: int, rows: bytes) -> int:
        _check_rows(rows)
        require(self._registry.royalty_bps(terms) != 0, "UnknownTerms", terms)
        total = moved = 0
        for _, cumulative, key in self._rows(Voucher, host, terms, epoch, rows):
            channel = self._channels[key]
            limit = Wei(min(cumulative, channel.locked))
            if limit > channel.redeemed:
                self._channels[key] = replace(channel, redeemed=limit)
                total += limit - channel.redeemed
                moved += 1
        if moved:
            before = self.earned(host, terms)
            self._gross[terms] += total
            royalty = self.earned(host, terms) - before
            self._host_balance[host] += total - royalty
            self.emit("Redeemed", host, terms, epoch, total - royalty, royalty, moved)
        return moved

    def _take(self, agent: bytes, parties: Table, k: int) -> int:
        terms = table_id(agent, parties)
        entitled = self._entitled(terms, parties[k][2], k)
        amount = entitled - self._claimed[terms, k]
        if amount:
            self._claimed[terms, k] = entitled
            self.emit("Claimed", terms, parties[k][0], k, amount)
        return amount

    def _entitled(self, terms: bytes, bps: int, k: int) -> int:
        """Party 0 rounds up, the others down, on the cumulative total."""
        royalty_bps = self._registry.royalty_bps(terms)
        if self._gross[terms] == 0:
            return 0
        weighted = self.earned(ZERO_ADDRESS, terms) * bps
        return -(-weighted // royalty_bps) if k == 0 else weighted // royalty_bps


def _check_rows(rows: bytes) -> None:
    require(len(rows) % ROW_SIZE == 0, "RaggedRows", len(rows))
