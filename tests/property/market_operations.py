"""Random operations on the market: share and promotion auctions, leases, published offers."""

from typing import Any

from hypothesis import strategies as st
from msgspec.structs import astuple

from lading_contracts import abi
from lading_protocol.eip712 import Domain
from lading_protocol.ids import ZERO_ADDRESS
from lading_protocol.keys import keccak256
from lading_protocol.receipts import Offer, Served
from property.chain_kit import AGENT, CHILD, PARAMETERS, key
from property.operations import Area, Step, Strategy, mostly, op, wait
from property.registry_operations import DIGESTS, RegistryArea, parties
from property.twin_chains import Call

LENGTH = PARAMETERS.epoch_length
BIDDERS = ("alice", "bob", "weaver", "curator")
TENANTS, HOSTS = ("alice", "bob"), ("host1", "op2")
MARKETS = ("share_auctions", "promotion_auctions", "leases")
SALT = b"s" * 32
BASES = (
    (("oem", 2, 1_111), ("maker", 1, 777)),
    (("oem", 2, 7_000), ("maker", 1, 500), ("curator", 4, 100)),
    (("maker", 1, 500),),
)

bidder, epoch, slot = mostly(*BIDDERS), mostly(1, 2, 0), mostly(0, 1, 2)
base, bps = mostly(*BASES), st.sampled_from((0, 1, 50, 80, 100, 101))
agent = mostly(AGENT, CHILD, DIGESTS[2])
bid_amount = st.sampled_from((0, 1, 4, 5, 9, 9, 12))
lease = mostly(0, 1, 2)
tenant, host = mostly(*TENANTS), mostly(*HOSTS)
third, rest = LENGTH // 3, LENGTH - 2 * (LENGTH // 3)

AUCTIONS: Strategy = st.one_of(
    op(
        "open_auction",
        mostly("oem", "maker"),
        mostly(CHILD, AGENT),
        epoch,
        st.sampled_from((0, 2, 3, 4, 5)),
        st.sampled_from((0, 1, 1, 2, 2, 9)),
        mostly(100, 0, 3_000),
        base,
        mostly("all", "none", "forged"),
    ),
    op("seal_share", bidder, epoch, bps),
    op("open_share", bidder, epoch, base, mostly(True, False)),
    op("settle_shares", epoch, base),
    op("seal_promotion", bidder, epoch, slot, agent, bid_amount),
    op("open_promotion", bidder, epoch, slot, mostly(True, False)),
    op("settle_promotion", epoch, slot),
    op("sunset_agent", mostly("oem", "maker"), mostly(CHILD, AGENT), st.sampled_from((None, 0, 20))),
    wait(1, third, rest, LENGTH, 2 * third),
)
LEASES: Strategy = st.one_of(
    op(
        "bid_lease",
        tenant,
        mostly("host1", None, "op2"),
        st.sampled_from((1, 2, 0)),
        st.sampled_from((0, 5, -1)),
        mostly(10, 3),
        mostly(1, 2),
        st.sampled_from((0, 3, 11)),
        st.sampled_from((0, 3, 11)),
    ),
    op("cancel_lease", tenant, lease),
    op("accept_lease", st.sampled_from(("host1", "op2", "cold", "alice")), lease, host),
    op("collect_lease", lease, st.sampled_from((0, 1, 3, 7, 10, 11)), mostly("tenant", "stranger")),
    op("quit_lease", st.sampled_from(("host1", "op2", "cold", "alice")), lease),
    op("vacate_lease", tenant, lease),
    op("finish_lease", lease),
    op("collect_unpaid", tenant, st.sampled_from(MARKETS)),
    op("publish", mostly("host1", "op2"), st.integers(0, 3), mostly(10, 0), mostly(True, False)),
    op("is_live", mostly("host1", "op2"), st.integers(0, 3), mostly(10, 0), mostly(True, False)),
    op("raise_floor", mostly("host1", "op2"), st.integers(0, 3)),
    op("set_payout", host, host, tenant),
    op("request_unstake", mostly("host1", "cold"), host, st.just(60)),
    wait(1, 5, 10, 86_400),
)


class MarketArea(Area):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.tables = RegistryArea(*given)
        self.bids: dict[Any, Any] = {}

    # --- share auctions: of CHILD, the one agent with a parent whose owner is another ---

    def auction(self, epoch: int) -> bytes:
        return keccak256(abi.encode(("bytes32", "uint32"), (CHILD, epoch)))

    def _open_auction(self, owner: str, agent: bytes, epoch: int, *given: Any) -> Call:
        role, seats, reserve, shape, consents = given
        signed = self.tables.consents(agent, shape, consents)
        arguments = (agent, epoch, role, seats, reserve, parties(shape), *signed)
        return Call("share_auctions", "open", owner, arguments)

    def _seal_share(self, bidder: str, epoch: int, bps: int) -> Call:
        self.bids[bidder, epoch] = bps
        seal = self.view("share_auctions", "sealOf", self.auction(epoch), key(bidder).address, bps, SALT)[0]
        return Call("share_auctions", "commit", bidder, (self.auction(epoch), seal))

    def _open_share(self, bidder: str, epoch: int, shape: Any, good: bool) -> Call:
        bps = self.bids.get((bidder, epoch), 50)
        arguments = (self.auction(epoch), bps, SALT if good else bytes(32), parties(shape))
        return Call("share_auctions", "reveal", bidder, arguments)

    def _settle_shares(self, epoch: int, shape: Any) -> Call:
        return Call("share_auctions", "settle", "stranger", (self.auction(epoch), parties(shape)))

    # --- promotion auctions ---

    def _seal_promotion(self, bidder: str, epoch: int, slot: int, agent: bytes, amount: int) -> Call:
        self.bids[bidder, epoch, slot] = (agent, amount)
        seal = self.view("promotion_auctions", "sealOf", epoch, slot, key(bidder).address, agent, amount, SALT)[0]
        return Call("promotion_auctions", "commit", bidder, (epoch, slot, seal))

    def _open_promotion(self, bidder: str, epoch: int, slot: int, good: bool) -> Call:
        agent, amount = self.bids.get((bidder, epoch, slot), (AGENT, 5))
        return Call("promotion_auctions", "reveal", bidder, (epoch, slot, agent, amount, SALT if good else bytes(32)))

    def _settle_promotion(self, epoch: int, slot: int) -> Call:
        return Call("promotion_auctions", "settle", "stranger", (epoch, slot))

    # --- leases ---

    def lease(self, n: int) -> bytes:
        deployment = self.stage.deployment
        values = (deployment.chain_id, deployment.leases, n)
        return keccak256(abi.encode(("uint256", "address", "uint256"), values))

    def _bid_lease(self, tenant: str, host: str | None, slots: int, ahead: int, *given: Any) -> Call:
        duration, rate, host_bond, tenant_bond = given
        at = ZERO_ADDRESS if host is None else key(host).address
        start = self.now + 2 + ahead
        request = (at, AGENT, slots, start, duration, rate, host_bond, tenant_bond, self.now + 2)
        return Call("leases", "bid", tenant, (request,))

    def _cancel_lease(self, tenant: str, n: int) -> Call:
        return Call("leases", "cancel", tenant, (self.lease(n),))

    def _accept_lease(self, sender: str, n: int, operator: str) -> Call:
        return Call("leases", "accept", sender, (self.lease(n), key(operator).address))

    def _collect_lease(self, n: int, served: int, signer: str) -> Call:
        deployment, id_ = self.stage.deployment, self.lease(n)
        tenant = self.view("leases", "leases", id_)[0][1]
        name = next((one for one in TENANTS if key(one).address == tenant), "stranger")
        paper = Served(id_, served).digest(Domain(deployment.chain_id, deployment.leases))
        signature = key(name if signer == "tenant" else signer).sign_digest(paper)
        return Call("leases", "collect", "stranger", (id_, served, signature))

    def _quit_lease(self, sender: str, n: int) -> Call:
        return Call("leases", "quit", sender, (self.lease(n),))

    def _vacate_lease(self, sender: str, n: int) -> Call:
        return Call("leases", "vacate", sender, (self.lease(n),))

    def _finish_lease(self, n: int) -> Call:
        return Call("leases", "finish", "stranger", (self.lease(n),))

    # --- offers ---

    def _offer(self, host: str, sequence: int, ahead: int, good: bool) -> tuple[Any, ...]:
        offer = Offer(key(host).address, AGENT, b"t" * 32, 1, 2, 3, sequence, self.now + ahead, b"d" * 32)
        signed = offer.sign(self.stage.deployment.settlement_domain, key(host if good else "stranger"))
        return astuple(offer), signed.signature

    def _publish(self, *given: Any) -> Call:
        return Call("offer_book", "publish", "stranger", self._offer(*given))

    def _is_live(self, *given: Any) -> Call:
        return Call("offer_book", "isLive", "stranger", self._offer(*given), view=True)

    def _raise_floor(self, host: str, floor: int) -> Call:
        return Call("offer_book", "raiseFloor", host, (floor,))


def auction_views(area: MarketArea) -> list[Step]:
    people = [key(name).address for name in (*BIDDERS, "maker", "oem")]
    asked: list[Step] = [("coin", "totalSupply")]
    for market in ("share_auctions", "promotion_auctions"):
        asked += [("coin", "balanceOf", area.stage.address(market))]
        asked += [(market, "unpaid", who) for who in people]
        asked += [(market, view, n) for view in ("startOf", "commitEnds") for n in range(3)]
        asked += [(market, view) for view in ("currentEpoch", "genesis", "epochLength", "coin")]
    for epoch in (1, 2):
        id_ = area.auction(epoch)
        asked += [("share_auctions", view, id_) for view in ("auctions", "leading", "winnersOf")]
        asked += [("share_auctions", "bidOf", id_, who) for who in people]
        asked += [("share_auctions", "termsOf", CHILD, epoch), ("promotion_auctions", "promoted", epoch)]
        for slot in range(3):
            asked += [("promotion_auctions", "slots", epoch, slot)]
            asked += [("promotion_auctions", "bidOf", epoch, slot, who) for who in people]
    return asked + [("coin", "balanceOf", who) for who in people]


def lease_views(area: MarketArea) -> list[Step]:
    people = [key(name).address for name in (*TENANTS, *HOSTS, "cold", "stranger")]
    asked: list[Step] = [("coin", "totalSupply"), ("leases", "count")]
    asked += [("coin", "balanceOf", who) for who in (*people, area.stage.deployment.leases)]
    asked += [("leases", "unpaid", who) for who in people] + [("offer_book", "floorOf", who) for who in people]
    asked += [("leases", view, area.lease(n)) for view in ("leases",) for n in range(4)]
    return asked + [("leases", "leaseId", n) for n in range(2)]
