"""ShareAuctions in memory: sealed bids in basis points, one uniform price, the table that comes of it."""

from typing import Any

import msgspec
from msgspec.structs import replace

from lading_contracts import abi
from lading_contracts.fake.epochs import EpochsModel, Seal, sealed
from lading_contracts.fake.lineage import Table
from lading_contracts.fake.parameters import ParametersModel
from lading_contracts.fake.registry import WHOLE_BPS, RegistryModel, table_id
from lading_contracts.fake.world import Book, Refused, World, require
from lading_protocol.ids import ZERO_DIGEST, Address
from lading_protocol.keys import keccak256

_HOSTS, _LAST_ROLE = 0, 4
_MAX_SEATS, _MAX_PARTIES = 8, 16
_NONE, _OPEN, _SETTLED, _VOID = range(4)
_SEAL = ("uint256", "address", "bytes32", "address", "uint16", "bytes32")


class Auction(msgspec.Struct, frozen=True):
    """In the order in which the contract shows it."""

    state: int = _NONE
    role: int = 0
    seats: int = 0
    reserve_bps: int = 0
    epoch: int = 0
    committed: int = 0
    revealed: int = 0
    deposit: int = 0
    agent: bytes = ZERO_DIGEST
    base: bytes = ZERO_DIGEST


class Bid(msgspec.Struct, frozen=True):
    bidder: Address
    bps: int
    order: int


class ShareAuctionsModel(EpochsModel):
    def __init__(self, world: World, address: Address, sender: Address, *given: Any) -> None:
        coin, registry, parameters, genesis, length = given
        super().__init__(world, address, coin, genesis, length)
        self._registry: RegistryModel = world.contracts[registry]
        self._parameters: ParametersModel = world.contracts[parameters]
        require(self._registry.auctions(sender) == address, "NotAuctions", address)
        self._auctions: Book[bytes, Auction] = Book(world, Auction())
        self._bids: Book[tuple[bytes, Address], Seal] = Book(world, Seal())
        self._leading: Book[bytes, tuple[Bid, ...]] = Book(world, ())
        self._terms: Book[bytes, bytes] = Book(world, ZERO_DIGEST)

    def open(self, sender: Address, agent: bytes, epoch: int, *given: Any) -> bytes:
        role, seats, reserve_bps, base, deadline, consents = given
        id_ = self.auction_id(sender, agent, epoch)
        require(self._auctions[id_].state == _NONE, "AlreadyOpen", id_)
        self._require_owner_in_time(sender, agent, epoch)
        total = self._registry.check_table(self.address, agent, sender, base, deadline, consents)
        _require_room(role, seats, reserve_bps, base, total)
        deposit = self._parameters.market_params(self._parameters.market_version()).share_deposit
        terms = table_id(agent, base)
        self._auctions[id_] = Auction(_OPEN, role, seats, reserve_bps, epoch, 0, 0, deposit, agent, terms)
        self.emit("AuctionOpened", id_, agent, epoch, role, seats, reserve_bps, deposit, base)
        return id_

    def commit(self, sender: Address, id_: bytes, seal: bytes) -> None:
        auction = self._auctions[id_]
        require(auction.state == _OPEN, "WrongAuction", id_)
        self._require_committing(auction.epoch)
        require(self._bids[id_, sender].order == 0, "BidTaken", sender)
        order = auction.committed + 1
        self._auctions[id_] = replace(auction, committed=order)
        self._bids[id_, sender] = sealed(seal, order)
        self.emit("ShareSealed", id_, sender, order)
        self._pull(sender, auction.deposit)

    def reveal(self, sender: Address, id_: bytes, bps: int, salt: bytes, base: Table) -> None:
        auction = self._opened(id_, base)
        self._require_revealing(auction.epoch)
        bid = self._bids[id_, sender]
        require(bid.holds(self.seal_of(sender, id_, sender, bps, salt)), "BadReveal")
        require(0 < bps <= auction.reserve_bps, "OverReserve", auction.reserve_bps)
        stands = any(payee == sender and role == auction.role for payee, role, _ in base)
        require(not stands, "BidTaken", sender)
        self._bids[id_, sender] = Seal(bid.order)
        self._auctions[id_] = replace(auction, revealed=auction.revealed + 1)
        ranked = sorted((*self._leading[id_], Bid(sender, bps, bid.order)), key=lambda one: (one.bps, one.order))
        self._leading[id_] = tuple(ranked[: auction.seats + 1])
        self.emit("ShareRevealed", id_, sender, bps)
        self._send(sender, auction.deposit)

    def settle(self, _sender: Address, id_: bytes, base: Table) -> bytes:
        auction = self._opened(id_, base)
        self._require_over(auction.epoch)
        forfeited = (auction.committed - auction.revealed) * auction.deposit
        winners, clearing_bps = self._clear(id_)
        terms = self._agree(auction, _final_table(auction, base, winners, clearing_bps)) if winners else ZERO_DIGEST
        self._auctions[id_] = replace(auction, state=_SETTLED if any(terms) else _VOID)
        if any(terms):
            self._terms[id_] = terms
            self.emit("AuctionSettled", id_, terms, clearing_bps, winners, forfeited)
        else:
            self.emit("AuctionVoid", id_, forfeited)
        self._destroy(forfeited)
        return terms

    # --- views ---

    def auctions(self, _sender: Address, id_: bytes) -> tuple[Any, ...]:
        return msgspec.structs.astuple(self._auctions[id_])

    def leading(self, _sender: Address, id_: bytes) -> tuple[Any, ...]:
        return tuple(msgspec.structs.astuple(bid) for bid in self._leading[id_])

    def bid_of(self, _sender: Address, id_: bytes, bidder: Address) -> tuple[int, bool]:
        bid = self._bids[id_, bidder]
        return bid.order, bid.order != 0 and not bid.kept

    def terms_of(self, sender: Address, agent: bytes, epoch: int) -> bytes:
        return self._terms[self.auction_id(sender, agent, epoch)]

    def winners_of(self, _sender: Address, id_: bytes) -> tuple[Address, ...]:
        return self._clear(id_)[0] if self._auctions[id_].state == _SETTLED else ()

    def auction_id(self, _sender: Address, agent: bytes, epoch: int) -> bytes:
        return keccak256(abi.encode(("bytes32", "uint32"), (agent, epoch)))

    def seal_of(self, _sender: Address, id_: bytes, bidder: Address, bps: int, salt: bytes) -> bytes:
        return keccak256(abi.encode(_SEAL, (self.world.chain_id, self.address, id_, bidder, bps, salt)))

    def registry(self, _sender: Address) -> Address:
        return self._registry.address

    def parameters(self, _sender: Address) -> Address:
        return self._parameters.address

    # --- inside ---

    def _require_owner_in_time(self, sender: Address, agent: bytes, epoch: int) -> None:
        node = self._registry.node(agent)
        require(node.owner == sender, "NotOwner", sender)
        require(epoch != 0, "BadAuction")
        ends = self.commit_ends(sender, epoch)
        require(self.world.now < ends, "TooLate", ends)
        require(node.sunset_at == 0 or node.sunset_at > self.start_of(sender, epoch), "BadAuction")
        over = self.start_of(sender, epoch + 1)
        require(over < 2**32, "SafeCastOverflowedUintDowncast", 32, over)

    def _opened(self, id_: bytes, base: Table) -> Auction:
        auction = self._auctions[id_]
        require(auction.state == _OPEN and auction.base == table_id(auction.agent, base), "WrongAuction", id_)
        return auction

    def _clear(self, id_: bytes) -> tuple[tuple[Address, ...], int]:
        """Uniform price: what the first loser asked, or the reserve when nobody lost."""
        auction, bids = self._auctions[id_], self._leading[id_]
        price = bids[auction.seats].bps if len(bids) > auction.seats else auction.reserve_bps
        return tuple(bid.bidder for bid in bids[: auction.seats]), price

    def _agree(self, auction: Auction, table: Table) -> bytes:
        """Zero when it is too late for terms, or when the registry takes the table no more."""
        end = self.start_of(self.address, auction.epoch + 1)
        if self.world.now >= end:
            return ZERO_DIGEST
        try:
            with self.world.attempt():
                return self._registry.agree_auctioned(self.address, auction.agent, table, end)
        except Refused:
            return ZERO_DIGEST


def _require_room(role: int, seats: int, reserve: int, base: Table, total: int) -> None:
    """Whoever wins, the table is one that the registry takes."""
    require(role <= _LAST_ROLE and 0 < seats <= _MAX_SEATS and reserve != 0, "BadAuction")
    if role == _HOSTS:
        require(total + reserve <= WHOLE_BPS, "BadAuction")
    else:
        require(total + seats * reserve < WHOLE_BPS and len(base) + seats <= _MAX_PARTIES, "BadAuction")


def _final_table(auction: Auction, base: Table, winners: tuple[Address, ...], price: int) -> Table:
    """What the winners left of what was put up goes to party 0; with the role of hosts, all but what the host keeps."""
    (payee, role, bps), *others = base
    if auction.role == _HOSTS:
        return ((payee, role, WHOLE_BPS - price - sum(share for _, _, share in others)), *others)
    saved = auction.seats * auction.reserve_bps - len(winners) * price
    return ((payee, role, bps + saved), *others, *((winner, auction.role, price) for winner in winners))
