"""All balances from events alone equal the contracts' own, after whatever anybody did, and through reorganisations.

The books never ask a contract. The sum of what they say a contract owes is what it holds, to the wei.
"""

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from lading_contracts.books import Books
from lading_contracts.committee import Dispute, Verdict
from lading_contracts.deployment import Contracts
from lading_contracts.follower import Cursor, Follower, Following
from lading_contracts.ledgers.courts import CourtLedger
from lading_contracts.port import Chain
from lading_contracts.settlement import Account, Batch
from lading_protocol.court import Phase
from lading_protocol.ids import ZERO_ADDRESS
from property.chain_kit import AGENT, CHILD, PARAMETERS
from property.court_operations import DISPUTES, GOVERNANCE, STAKING, CourtArea
from property.market_operations import AUCTIONS, BASES, LEASES, MarketArea
from property.money_operations import MONEY, MoneyArea
from property.operations import ENOUGH, Area, Step, Strategy, op, perform
from property.registry_operations import DIGESTS, REGISTRY, RegistryArea
from property.twin_chains import Stage, Twins

EVERYTHING: Strategy = st.one_of(MONEY, MONEY, STAKING, DISPUTES, AUCTIONS, LEASES, REGISTRY, GOVERNANCE)
FOLLOWING: Strategy = st.one_of(op("follow", st.integers(1, 4)), op("rewind", st.integers(1, 12)))
OPENING: list[Step] = [
    ("deposit", "alice", 60),
    ("deposit", "bob", 41),
    ("authorize", "alice", "session1", 41, 40, "good"),
    ("lock", "host1", AGENT, 0, [("alice", 20, False), ("session1", 11, False), ("bob", 31, False)]),
    ("redeem", "host1", AGENT, 0, [("alice", 7, False), ("bob", 11, False)]),
    ("register", "weaver", DIGESTS[2], bytes(32), 0),
    ("open_auction", "oem", CHILD, 1, 2, 2, 100, BASES[0], "all"),
    ("seal_share", "alice", 1, 80),
    ("seal_promotion", "bob", 1, 0, CHILD, 9),
    ("open", "alice", 0, "good"),
    ("bid_lease", "alice", None, 1, 0, 10, 2, 3, 11),
    ("accept_lease", "host1", 0, "host1"),
]


class Reader:
    """Books that follow a chain as a program would, in batches of some blocks."""

    def __init__(self, stage: Stage, chain: Chain) -> None:
        self.stage, self.chain = stage, chain
        self.books = Books(stage.names)
        self.cursor = Cursor(start=stage.deployment.block)

    def follow(self, span: int = 2_000) -> None:
        follower = Follower(self.chain, self.stage.names, Following(span=span))
        while (progress := self.stage.run(follower.step(self.cursor))) is not None:
            self.books.apply(progress)
            self.cursor = progress.cursor

    def check(self) -> None:
        contracts = Contracts(self.chain, self.stage.deployment)
        self.stage.run(same_money(self.books, contracts))
        self.stage.run(same_stakes(self.books, contracts))
        self.stage.run(same_disputes(self.books.court, contracts.court))
        self.stage.run(same_disputes(self.books.lineage_court, contracts.lineage_court))
        self.stage.run(same_market(self.books, contracts))
        for holding in self.books.holdings():
            assert holding.held == holding.owed, holding


async def same_money(books: Books, contracts: Contracts) -> None:
    ledger, settlement = books.settlement, contracts.settlement
    for who, amount in books.coins.items():
        assert await contracts.coin.balance(who) == amount
    for payer, account in ledger.accounts.items():
        assert await settlement.account(payer) == account
    for key, session in ledger.sessions.items():
        assert await settlement.session(key) == session
    for host, amount in ledger.hosts.items():
        assert await settlement.host_balance(host) == amount
        assert await settlement.payout_of(host) == ledger.payout_of(host)
    for terms, parties in ledger.tables.items():
        assert await settlement.gross(terms) == ledger.pools[terms].gross
        assert await settlement.earned(terms) == ledger.pools[terms].earned
        for k in range(len(parties)):
            assert await settlement.claimed(terms, k) == ledger.claimed[terms, k]
    await same_channels(books, contracts)


async def same_channels(books: Books, contracts: Contracts) -> None:
    """A batch's outstanding money is exact, a channel's lies in its range, and a closed channel's past is exact."""
    ledger = books.settlement
    outstanding: dict[Batch, int] = {}
    for key, record in ledger.channels.items():
        channel = await contracts.settlement.channel(key)
        told = (record.locked, record.closes_at, record.via_session, record.dead)
        assert told == (channel.locked, channel.closes_at, channel.via_session, channel.dead)
        rest, between = channel.locked - channel.redeemed, ledger.outstanding_of(key)
        assert between.least <= rest <= between.most
        batch = Batch(key.host, key.terms, key.epoch)
        outstanding[batch] = outstanding.get(batch, 0) + rest
    assert {batch: amount for batch, amount in outstanding.items() if amount} == ledger.outstanding.shown()


async def same_stakes(books: Books, contracts: Contracts) -> None:
    for operator, found in books.staking.operators.items():
        assert await contracts.staking.operator(operator) == found
        assert await contracts.staking.is_active(operator) == books.staking.active[operator]
        assert await contracts.court.surety_of(operator) == books.court.sureties[operator]
        assert await contracts.lineage_court.surety_of(operator) == books.lineage_court.sureties[operator]


async def same_disputes(ledger: CourtLedger, court: Any) -> None:
    for id_, dispute in ledger.disputes.items():
        shown: Dispute = await court.dispute(id_)
        stands = dispute.phase in (Phase.RULED, Phase.CLOSED) and dispute.appeal_by == 0
        assert (replace(shown, appeal_by=0) if stands else shown) == dispute


async def same_market(books: Books, contracts: Contracts) -> None:
    shares, promotions = books.share_auctions, books.promotion_auctions
    for id_, auction in shares.auctions.items():
        assert await contracts.share_auctions.auction(id_) == auction
    for id_, result in shares.results.items():
        assert result is not None
        assert await contracts.share_auctions.winners_of(id_) == result.winners
    for (id_, bidder), bid in shares.bids.items():
        assert await contracts.share_auctions.bid_of(id_, bidder) == bid
    for (epoch, slot), found in promotions.slots.items():
        assert await contracts.promotion_auctions.slot(epoch, slot) == found
    for (at, bidder), bid in promotions.bids.items():
        assert await contracts.promotion_auctions.bid_of(*at, bidder) == bid
    for id_, lease in books.leases.leases.items():
        shown = await contracts.leases.lease(id_)
        assert shown is not None
        assert replace(shown, bond_payer=ZERO_ADDRESS) == lease
    for (contract, payee), amount in books.unpaid.items():
        court = {"AuditCourt": contracts.court, "LineageCourt": contracts.lineage_court}[contract]
        assert await court.unpaid(payee) == amount


def areas(stage: Stage) -> list[Area]:
    return [kind(stage) for kind in (RegistryArea, MoneyArea, CourtArea, MarketArea)]


@settings(ENOUGH, max_examples=5 * ENOUGH.max_examples)  # no real chain here: a play takes some milliseconds
@given(script=st.lists(st.one_of(EVERYTHING, EVERYTHING, FOLLOWING), min_size=10, max_size=40))
def test_books_follow_whatever_happens_and_is_taken_back(stage: Stage, script: list[Step]) -> None:
    stage.reset()
    reader, cast = Reader(stage, stage.fake), areas(stage)
    reader.follow()
    for step in [*OPENING, *script]:
        match step:
            case ("follow", span):
                reader.follow(span)
            case ("rewind", count):
                stage.fake.rewind(max(stage.base, stage.head(stage.fake) - count))
            case _:
                perform(stage, cast, step)
    stage.mine(60)  # a reorganised chain is believed when it is the longer one
    reader.follow()
    reader.check()


LIFECYCLE: list[Step] = [
    *OPENING,
    ("contest", "maker", DIGESTS[2], AGENT),
    ("answer", "weaver"),
    ("mine", 2),
    *[("draw", case) for case in (("court", "alice", 0), ("lineage_court",))],
    *[("vote", case, [Verdict.GUILTY] * 3) for case in (("court", "alice", 0), ("lineage_court",))],
    *[("tally", case) for case in (("court", "alice", 0), ("lineage_court",))],
    ("wait", 20),
    *[("execute", case) for case in (("court", "alice", 0), ("lineage_court",))],
    ("open_share", "alice", 1, BASES[0], True),
    ("open_promotion", "bob", 1, 0, True),
    ("collect_lease", 0, 3, "tenant"),
    ("start_close", "bob", "bob", "host1", AGENT, 0),
    ("wait", 20),
    ("settle_shares", 1, BASES[0]),
    ("settle_promotion", 1, 0),
    ("claim", AGENT, 0),
    ("withdraw", "host1"),
    ("finish_close", "alice", "bob", "host1", AGENT, 0),
    ("request_unstake", "cold", "op2", 20),
    ("vacate_lease", "alice", 0),
]


@settings(ENOUGH, max_examples=5 * ENOUGH.max_examples)
@example(cuts=[], span=2_000)
@given(cuts=st.lists(st.tuples(st.integers(1, 50), st.integers(1, 9)), max_size=4), span=st.integers(1, 5))
def test_a_lifecycle_is_taken_back_and_lived_again(stage: Stage, cuts: list[tuple[int, int]], span: int) -> None:
    """After so many steps the chain forgets so many blocks; what was done in them is done again."""
    stage.reset()
    reader, cast = Reader(stage, stage.fake), areas(stage)
    done = 0
    for at, back in [*sorted(cuts), (len(LIFECYCLE), 0)]:
        for step in LIFECYCLE[done : at + 1]:
            perform(stage, cast, step)
        reader.follow(span)
        if back:
            stage.fake.rewind(max(stage.base, stage.head(stage.fake) - back))
        done = max(0, at + 1 - back)
    stage.mine(60)
    reader.follow()
    reader.check()


def test_books_of_the_real_contracts(twins: Twins) -> None:
    twins.reset()
    reader, cast = Reader(twins, twins.real), areas(twins)
    outcomes = [outcome for step in LIFECYCLE for outcome in perform(twins, cast, step)]
    assert [outcome.refused for outcome in outcomes if outcome.refused] == []
    reader.follow()
    reader.check()


def test_a_payer_alone_in_its_batches_knows_its_channels_to_the_wei(stage: Stage) -> None:
    stage.reset()
    reader, cast = Reader(stage, stage.fake), areas(stage)
    alice, bob = (stage.actors[name].address for name in ("alice", "bob"))
    for step in OPENING:
        perform(stage, cast, step)
    reader.follow()
    # alice has 20 and 11 in the batch, bob 31; 18 of 62 were redeemed, and no event says of whom
    assert (reader.books.estate(alice).at_hosts.least, reader.books.estate(alice).at_hosts.most) == (13, 31)
    perform(stage, cast, ("start_close", "bob", "bob", "host1", AGENT, 0))
    perform(stage, cast, ("wait", PARAMETERS.close_delay))
    perform(stage, cast, ("finish_close", "bob", "bob", "host1", AGENT, 0))
    reader.follow()
    estate = reader.books.estate(alice)
    assert estate.at_hosts.least == estate.at_hosts.most == 24
    assert reader.books.settlement.accounts[bob] == Account(30, 0, 0)


def test_books_are_built_again_after_a_reorganisation_that_is_too_deep_to_take_back(stage: Stage) -> None:
    stage.reset()
    reader, cast = Reader(stage, stage.fake), areas(stage)
    for step in OPENING:
        perform(stage, cast, step)
    reader.follow()
    stage.mine(80)
    reader.follow(span=1)
    stage.fake.rewind(stage.base + 3)
    perform(stage, cast, ("request_exit", "alice", 7))
    stage.mine(100)
    reader.follow()
    reader.check()
    alice = stage.actors["alice"].address
    assert reader.books.settlement.accounts[alice].exit_amount == 7
    assert not list(reader.books.settlement.channels.values())
