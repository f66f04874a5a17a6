"""The real contracts over a real socket, on both chains: every road through them, and equal hashes."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from integration.chain import journeys
from integration.chain.journeys import ACTORS
from integration.chain.served import CHAIN_ID, KINDS, Chain, raised, run
from lading_contracts.court import Ballot, Verdict, dispute_id
from lading_contracts.deploy import deploy
from lading_contracts.deployment import Contracts
from lading_contracts.events import Entry, Event, Executed, Redeemed
from lading_contracts.follower import Cursor, Follower
from lading_contracts.lineage import contest_id
from lading_contracts.promotions import PromotionBid
from lading_contracts.registry import rows, tag_of, terms_id
from lading_contracts.rpc import RpcChain
from lading_contracts.settlement import ChannelKey
from lading_contracts.shares import auction_id
from lading_contracts.timelock import Call
from lading_protocol.eip712 import Domain, Signable
from lading_protocol.ids import Digest, TermsId, Wei
from lading_protocol.receipts import (
    Lock,
    Offer,
    Receipt,
    Served,
    SessionConsent,
    SessionGrant,
    StakeConsent,
    TermsConsent,
    Voucher,
)
from property.chain_kit import AGENT, FAUCET, PARAMETERS, furnish, key, tables

# The chain's own time, and epochs long enough for a dozen transactions in each of their thirds.
HERE = msgspec.structs.replace(PARAMETERS, epoch_genesis=None, epoch_length=600)


async def prepared(chain: RpcChain) -> Contracts:
    contracts = Contracts(chain, await deploy(chain, FAUCET, HERE))
    await contracts.check()
    await furnish(contracts, {name: key(name) for name in ACTORS}, coins=1_000)
    return contracts


async def history(contracts: Contracts) -> list[Entry]:
    follower, cursor = Follower(contracts.chain, contracts.deployment.names()), Cursor(contracts.deployment.block)
    entries: list[Entry] = []
    while (batch := await follower.step(cursor)) is not None:
        entries += batch.entries
        cursor = batch.cursor
    return entries


@pytest.mark.parametrize("kind", KINDS)
def test_the_road_of_the_money_and_of_a_dispute(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with raised(kind, tmp_path / "chain") as chain:
            contracts = await prepared(chain)
            await journeys.settle_a_job(contracts)
            await journeys.pay_without_a_transaction(contracts)
            await journeys.stake_everybody(contracts)
            await journeys.punish_a_cheat(contracts, chain)
            kinds: list[Event] = [entry.event for entry in await history(contracts)]
            assert [e.rows for e in kinds if isinstance(e, Redeemed)] == [2]
            (executed,) = [e for e in kinds if isinstance(e, Executed)]
            parts = (executed.burnt, executed.refunded, executed.fee, executed.reward)
            assert executed.slashed == sum(parts) == 50

    run(main(), 110)


@pytest.mark.parametrize("kind", KINDS)
def test_the_road_of_a_table_from_consent_to_sunset(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with raised(kind, tmp_path / "chain") as chain:
            contracts = await prepared(chain)
            await contracts.settlement.deposit(key("alice"), 600)
            await journeys.agree_with_signatures(contracts, chain)
            await journeys.auction_a_share(contracts, chain)
            await journeys.auction_a_promotion(contracts, chain)
            await journeys.publish_an_offer(contracts, chain)
            await journeys.sunset_terms(contracts, chain)

    run(main(), 110)


@pytest.mark.parametrize("kind", KINDS)
def test_the_road_of_leases_courts_and_parameters(kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with raised(kind, tmp_path / "chain") as chain:
            contracts = await prepared(chain)
            await journeys.stake_everybody(contracts)
            await journeys.lease_capacity(contracts, chain)
            await journeys.dispute_an_anchored_receipt(contracts, chain)
            await journeys.dispute_a_bound_receipt(contracts, chain)
            await journeys.contest_a_lineage(contracts, chain)
            await journeys.change_a_parameter(contracts, chain)

    run(main(), 110)


def test_python_and_solidity_hash_the_same(served: Chain) -> None:
    async def main() -> None:
        chain = served.open()
        contracts = Contracts(chain, await deploy(chain, FAUCET, PARAMETERS))
        for contract, function, arguments, paper in papers(contracts):
            (theirs,) = await contract._view(function, *arguments)
            assert paper.digest(Domain(CHAIN_ID, contract.address)) == theirs, function
        for contract, function, arguments, ours in ids(contracts):
            (theirs,) = await contract._view(function, *arguments)
            assert ours == theirs, function
        (theirs,) = await contracts.coin._view("DOMAIN_SEPARATOR")
        assert (await contracts.coin.domain()).separator == theirs
        calendar = await contracts.share_auctions.calendar()
        for epoch in (1, 7, 10**6):
            assert calendar.start_of(epoch) == await contracts.share_auctions.start_of(epoch)
            assert calendar.commit_ends(epoch) == await contracts.share_auctions.commit_ends(epoch)
        await chain.close()

    run(main())


A, B = key("a").address, key("b").address
OFFER = (A, b"g" * 32, b"t" * 32, 1, 2, 3, 4, 5, b"d" * 32)
RECEIPT = (b"j" * 32, 1, b"r" * 32, b"g" * 32, b"t" * 32, A, B, 2, 3, 4, 5, b"p" * 32, b"c" * 32, 6, 7, 8, 4, 9, 3)


def papers(contracts: Contracts) -> list[tuple[Any, str, tuple[Any, ...], Signable]]:
    """Every signed struct, with the view of the contract that hashes it."""
    settlement, staking, court = contracts.settlement, contracts.staking, contracts.court
    voucher = (A, b"t" * 32, 3, 2**96 - 1)
    grant = (A, B, 2**96 - 1, 2**40 - 1, 2**64 - 1)
    return [
        (settlement, "voucherDigest", voucher, Voucher(*voucher)),
        (settlement, "lockDigest", voucher, Lock(*voucher)),
        (settlement, "sessionConsentDigest", (A,), SessionConsent(A)),
        (settlement, "sessionGrantDigest", grant, SessionGrant(*grant)),
        (settlement, "offerDigest", (OFFER,), Offer(*OFFER)),
        (contracts.registry, "consentDigest", (b"t" * 32, 2**40 - 1), TermsConsent(b"t" * 32, 2**40 - 1)),
        (staking, "stakeConsentDigest", (A,), StakeConsent(A)),
        (court, "receiptDigest", (RECEIPT,), Receipt(*RECEIPT)),
        (contracts.leases, "servedDigest", (b"l" * 32, 2**32 - 1), Served(b"l" * 32, 2**32 - 1)),
    ]


def ids(contracts: Contracts) -> list[tuple[Any, str, tuple[Any, ...], bytes]]:
    """What Python computes instead of asking, with the view that says the same."""
    shares, promotions, table = contracts.share_auctions, contracts.promotion_auctions, tables()[AGENT]
    receipt, ballot = Receipt(*RECEIPT), Ballot(Verdict.HONEST, Digest(b"e" * 32), b"s" * 32)
    bid = PromotionBid(AGENT, Wei(2**96 - 1), b"s" * 32)
    call = Call(A, b"data", 5, Digest(b"p" * 32), Digest(b"s" * 32))
    operation = (call.target, call.value, call.data, call.predecessor, call.salt)
    return [
        (contracts.registry, "termsId", (AGENT, rows(table)), terms_id(AGENT, table)),
        (contracts.registry, "tagOf", (AGENT,), tag_of(AGENT)),
        (contracts.settlement, "channelId", (A, B, b"t" * 32, 7), ChannelKey(A, B, TermsId(b"t" * 32), 7).id),
        (contracts.court, "disputeId", (A, b"j" * 32, 1, B), dispute_id(receipt, B)),
        (
            contracts.court,
            "voteCommitment",
            (b"i" * 32, 2, A, 1, b"e" * 32, b"s" * 32),
            ballot.commitment(b"i" * 32, 2, A),
        ),
        (contracts.lineage_court, "contestId", (b"g" * 32, b"p" * 32, A), contest_id(b"g" * 32, b"p" * 32, A)),
        (shares, "auctionId", (AGENT, 9), auction_id(AGENT, 9)),
        (shares, "sealOf", (b"i" * 32, A, 77, b"s" * 32), shares.seal(b"i" * 32, A, 77, b"s" * 32)),
        (promotions, "sealOf", (9, 1, A, AGENT, bid.amount, bid.salt), promotions.seal(9, 1, A, bid)),
        (contracts.leases, "leaseId", (3,), contracts.leases.lease_id(3)),
        (contracts.timelock, "hashOperation", operation, call.id),
    ]
