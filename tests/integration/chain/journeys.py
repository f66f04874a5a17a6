"""The roads through the contracts that the tests of this folder take on every chain. Each begins after `furnish`."""

from typing import Any

import msgspec
import pytest

from integration.chain.served import now, travel
from lading_contracts.coin import Permit, ReceiveWithAuthorization
from lading_contracts.committee import Ballot, Dispute, Verdict
from lading_contracts.court import Proof, dispute_id
from lading_contracts.deployment import Contracts
from lading_contracts.errors import Reverted
from lading_contracts.leases import LeaseRequest, State
from lading_contracts.lineage import contest_id
from lading_contracts.promotions import PromotionBid
from lading_contracts.registry import Consents, Party, Role, terms_id
from lading_contracts.rpc import RpcChain
from lading_contracts.settlement import Batch, ChannelKey
from lading_contracts.shares import AuctionState, Lot
from lading_contracts.timelock import OperationState
from lading_protocol.court import Phase
from lading_protocol.eip712 import Signed
from lading_protocol.ids import AgentId, Digest, Signature, TermsId, Wei
from lading_protocol.keys import PrivateKey
from lading_protocol.receipts import (
    Finish,
    Lock,
    Offer,
    Receipt,
    Served,
    SessionConsent,
    SessionGrant,
    SignedReceipt,
    StakeConsent,
    TermsConsent,
    Voucher,
    receipt_leaf,
)
from lading_protocol.sheaves import bind
from lading_protocol.transcript import sha256
from property.chain_kit import AGENT, key, tables

ACTORS = ("alice", "host", "owner", "juror0", "juror1", "juror2", "bidder", "rival", "tenant", "governor", "thief")
TERMS = terms_id(AGENT, tables()[AGENT])
SURETY = 30


async def refused(work: Any) -> str:
    """The name of the contract's error."""
    with pytest.raises(Reverted) as caught:
        await work
    return caught.value.name


async def settle_a_job(contracts: Contracts) -> None:
    """deposit, session key, signed lock and vouchers in a batch, claims, withdrawal: every wei accounted for."""
    alice, session, host, maker = key("alice"), key("session"), key("host"), key("maker")
    settlement, record = contracts.settlement, contracts.deployment
    domain = record.settlement_domain
    head = await contracts.chain.block()
    assert head is not None
    await settlement.deposit(alice, 600)
    consent = session.sign_digest(SessionConsent(alice.address).digest(domain))
    await settlement.authorize(alice, session.address, 500, head.timestamp + 3_600, consent)
    batch = Batch(host.address, TERMS)
    lock = session.sign_digest(Lock(host.address, TERMS, 0, 400).digest(domain))
    own = alice.sign_digest(Lock(host.address, TERMS, 0, 50).digest(domain))
    await settlement.lock(host, batch, [(400, lock), (50, own)])
    vouchers = [
        (300, session.sign_digest(Voucher(host.address, TERMS, 0, 300).digest(domain))),
        (60, alice.sign_digest(Voucher(host.address, TERMS, 0, 60).digest(domain))),
        (200, session.sign_digest(Voucher(host.address, TERMS, 0, 200).digest(domain))),
    ]
    receipt = await settlement.redeem(host, batch, vouchers)
    assert len(receipt.logs) == 1
    assert await refused(settlement.redeem(host, batch, vouchers)) == "NoProgress"
    channel = await settlement.channel(ChannelKey(session.address, host.address, TERMS))
    assert (channel.locked, channel.redeemed, channel.via_session) == (400, 300, True)
    pool = 350 * sum(party.bps for party in tables()[AGENT]) // 10_000
    assert await settlement.earned(TERMS) == pool
    before = await contracts.coin.balance(maker.address)
    await settlement.claim(host, AGENT, tables()[AGENT], 0)
    assert await refused(settlement.claim(host, AGENT, tables()[AGENT], 1)) == "NothingDue"
    assert await contracts.coin.balance(maker.address) - before == pool
    held = await contracts.coin.balance(host.address)
    await settlement.withdraw(alice, host.address)
    assert await contracts.coin.balance(host.address) - held == 350 - pool
    assert (await settlement.account(alice.address)).free == 150
    assert await contracts.coin.balance(settlement.address) == 150 + 100


async def pay_without_a_transaction(contracts: Contracts) -> None:
    """A permit, an authorization and a session grant: the payer signs, somebody else sends."""
    owner, alice, thief = key("owner"), key("alice"), key("thief")
    coin, settlement = contracts.coin, contracts.settlement
    domain, chain = await coin.domain(), contracts.chain
    head = await chain.block()
    assert head is not None
    late = head.timestamp + 10_000
    permit = Permit(owner.address, settlement.address, 11, await coin.permit_nonce(owner.address), late)
    await coin.approve(owner, settlement.address, 0)
    await settlement.deposit_with_permit(owner, 11, late, owner.sign_digest(domain.digest(permit)))
    paper = ReceiveWithAuthorization(owner.address, settlement.address, 13, 0, late, b"n" * 32)
    signature = owner.sign_digest(domain.digest(paper))
    assert await refused(coin.receive_with_authorization(thief, paper, signature)) != ""
    await settlement.deposit_with_authorization(alice, paper, signature)
    assert await coin.authorization_used(owner.address, b"n" * 32)
    assert (await settlement.account(owner.address)).free == 24
    session = key("granted session")
    nonce = await settlement.grant_nonce(owner.address)
    grant = SessionGrant(owner.address, session.address, 20, late, nonce)
    papers = contracts.deployment.settlement_domain
    consent = SessionConsent(owner.address).sign(papers, session).signature
    stolen = grant.sign(papers, thief)
    assert await refused(settlement.authorize_for(thief, stolen, consent)) == "BadGrant"
    await settlement.authorize_for(alice, grant.sign(papers, owner), consent)
    assert await refused(settlement.authorize_for(alice, grant.sign(papers, owner), consent)) == "BadGrant"
    held = await settlement.session(session.address)
    assert held is not None
    assert (held.payer, held.cap, held.expiry) == (owner.address, 20, late)
    await settlement.revoke(owner, session.address)
    await settlement.request_exit(owner, 24)


async def agree_with_signatures(contracts: Contracts, chain: RpcChain) -> None:
    """A party signs in Python, the registry counts it; without it, or too late, there is no table."""
    maker, weaver = key("maker"), key("weaver")
    registry, domain = contracts.registry, contracts.deployment.registry_domain
    table = (Party(maker.address, Role.MAKER, 100), Party(weaver.address, Role.WEAVER, 50))
    id_, deadline = terms_id(AGENT, table), await now(chain) + 1_000
    assert await refused(registry.agree_terms(maker, AGENT, table)) == "NoConsent"
    other = TermsConsent(id_, deadline + 1).sign(domain, weaver).signature
    assert await refused(registry.check_table(AGENT, maker.address, table, _by(weaver, deadline, other))) == "NoConsent"
    good = TermsConsent(id_, deadline).sign(domain, weaver).signature
    assert await registry.check_table(AGENT, maker.address, table, _by(weaver, deadline, good)) == 150
    assert await registry.agree_terms(maker, AGENT, table, _by(weaver, deadline, good)) == id_
    agreed = await registry.terms(id_)
    assert agreed is not None
    assert agreed.belongs_to(AGENT)
    assert (agreed.royalty_bps, agreed.parties, agreed.sunset_at) == (150, 2, 0)


def _by(who: PrivateKey, deadline: int, signature: bytes) -> Consents:
    return Consents(deadline, {who.address: signature})


async def sunset_terms(contracts: Contracts, chain: RpcChain) -> None:
    """After a sunset nothing is locked; what was locked before is redeemed all the same."""
    maker, alice, host = key("maker"), key("alice"), key("host")
    registry, settlement, domain = contracts.registry, contracts.settlement, contracts.deployment.settlement_domain
    table = (Party(maker.address, Role.MAKER, 200),)
    id_ = await registry.agree_terms(maker, AGENT, table)
    batch = Batch(host.address, id_)
    await settlement.lock(host, batch, [(10, Lock(host.address, id_, 0, 10).sign(domain, alice).signature)])
    notice = await registry.notice()
    assert await refused(registry.sunset_terms(maker, id_, AGENT, await now(chain) + notice - 10)) == "NoticeTooShort"
    moment = await now(chain) + notice + 100
    await registry.sunset_terms(maker, id_, AGENT, moment)
    assert await registry.is_open(id_)
    await travel(chain, moment)
    assert not await registry.is_open(id_)
    more = [(20, Lock(host.address, id_, 0, 20).sign(domain, alice).signature)]
    assert await refused(settlement.lock(host, batch, more)) == "TermsClosed"
    paid = [(10, Voucher(host.address, id_, 0, 10).sign(domain, alice).signature)]
    await settlement.lock_and_redeem(host, batch, more, paid)
    assert await settlement.gross(id_) == 10


async def auction_a_share(contracts: Contracts, chain: RpcChain) -> TermsId:
    """Open, seal, reveal, settle: two seats of curators, and the terms of the epoch are the lowest asks' price."""
    maker, bidder, rival = key("maker"), key("bidder"), key("rival")
    auctions = contracts.share_auctions
    calendar = await auctions.calendar()
    base = (Party(maker.address, Role.MAKER, 300),)
    epoch = calendar.epoch_at(await now(chain)) + 2
    lot = Lot(AGENT, epoch, Role.CURATOR, 1, 400)
    id_ = await auctions.open(maker, lot, base)
    await travel(chain, calendar.commit_starts(epoch))
    asks = {bidder: 250, rival: 350}
    for who, bps in asks.items():
        await auctions.commit(who, id_, auctions.seal(id_, who.address, bps, who.address.rjust(32, b"\0")))
    assert (await auctions.bid_of(id_, rival.address)).order == 2
    await travel(chain, calendar.commit_ends(epoch))
    for who, bps in asks.items():
        await auctions.reveal(who, id_, bps, who.address.rjust(32, b"\0"), base)
    assert [bid.bps for bid in await auctions.leading(id_)] == [250, 350]
    await travel(chain, calendar.start_of(epoch))
    await auctions.settle(rival, id_, base)
    found = await auctions.auction(id_)
    assert found is not None
    assert (found.state, found.committed, found.revealed) == (AuctionState.SETTLED, 2, 2)
    assert await auctions.winners_of(id_) == (bidder.address,)
    table = (Party(maker.address, Role.MAKER, 350), Party(bidder.address, Role.CURATOR, 350))
    made = await auctions.terms_of(AGENT, epoch)
    assert made == terms_id(AGENT, table)
    agreed = await contracts.registry.terms(made)
    assert agreed is not None
    assert agreed.sunset_at == calendar.start_of(epoch + 1)
    assert await contracts.coin.balance(auctions.address) == 0
    return made


async def auction_a_promotion(contracts: Contracts, chain: RpcChain) -> None:
    """The highest bid is shown, and pays the second highest."""
    bidder, rival = key("bidder"), key("rival")
    auctions = contracts.promotion_auctions
    calendar = await auctions.calendar()
    epoch = calendar.epoch_at(await now(chain)) + 1
    await travel(chain, calendar.commit_starts(epoch))
    bids = {bidder: PromotionBid(AGENT, Wei(90), b"s" * 32), rival: PromotionBid(AGENT, Wei(60), b"t" * 32)}
    for who, bid in bids.items():
        await auctions.commit(who, epoch, 0, auctions.seal(epoch, 0, who.address, bid))
    await travel(chain, calendar.commit_ends(epoch))
    for who, bid in bids.items():
        await auctions.reveal(who, epoch, 0, bid)
    slot = await auctions.slot(epoch, 0)
    assert (slot.winner, slot.best, slot.price) == (bidder.address, 90, 60)
    await travel(chain, calendar.start_of(epoch))
    held = await contracts.coin.balance(bidder.address)
    await auctions.settle(rival, epoch, 0)
    assert await contracts.coin.balance(bidder.address) - held == 30
    assert (await auctions.promoted(epoch))[0] == AGENT
    assert await contracts.coin.balance(auctions.address) == 0


async def unsettled(contracts: Contracts, court: Any) -> int:
    """What a court holds beside the sureties of its jurors."""
    jurors = [key(name).address for name in ("host", "juror0", "juror1", "juror2")]
    return await contracts.coin.balance(court.address) - sum([await court.surety_of(juror) for juror in jurors])


async def stake_everybody(contracts: Contracts) -> None:
    owner, domain = key("owner"), contracts.deployment.staking_domain
    await contracts.staking.stake(key("host"), key("host").address, 100)
    for n in range(3):
        juror = key(f"juror{n}")
        consent = StakeConsent(owner.address).sign(domain, juror).signature
        await contracts.staking.stake(owner, juror.address, 100, consent)
        for court in (contracts.court, contracts.lineage_court):
            await court.lodge(owner, juror.address, SURETY)
    for court in (contracts.court, contracts.lineage_court):
        await court.lodge(key("host"), key("host").address, SURETY)
    assert await contracts.staking.operator_count() == len(await contracts.staking.operators()) == 4
    assert await contracts.staking.owner_of(key("juror0").address) == owner.address


async def lease_capacity(contracts: Contracts, chain: RpcChain) -> None:
    """Bid, accept, paid as it is served, finished: both bonds are back."""
    tenant, host, leases = key("tenant"), key("host"), contracts.leases
    start = await now(chain) + 50
    request = LeaseRequest(
        agent=AGENT,
        slots=2,
        start=start,
        duration=20,
        rate=Wei(3),
        host_bond=Wei(40),
        tenant_bond=Wei(30),
        accept_by=start,
    )
    before = await contracts.coin.balance(tenant.address)
    bid = await leases.bid(tenant, request)
    id_ = leases.id_in(bid)
    assert id_ == leases.lease_id(0)
    assert before - await contracts.coin.balance(tenant.address) == request.escrow == 150
    await leases.accept(host, id_, host.address)
    running = await leases.lease(id_)
    assert running is not None
    assert (running.state, running.host, running.bond_payer) == (State.RUNNING, host.address, host.address)
    domain = contracts.deployment.leases_domain
    await travel(chain, start + 5)
    assert await refused(leases.collect(host, Served(id_, 5).sign(domain, key("thief")))) == "BadServed"
    held = await contracts.coin.balance(host.address)
    await leases.collect(key("thief"), Served(id_, 5).sign(domain, tenant))
    assert await contracts.coin.balance(host.address) - held == 2 * 3 * 5
    await travel(chain, start + 20)
    await leases.collect(host, Served(id_, 20).sign(domain, tenant))
    await leases.finish(key("thief"), id_)
    ended = await leases.lease(id_)
    assert ended is not None
    assert (ended.state, ended.served) == (State.ENDED, 20)
    assert before - await contracts.coin.balance(tenant.address) == 120
    assert await contracts.coin.balance(leases.address) == 0


async def publish_an_offer(contracts: Contracts, chain: RpcChain) -> None:
    host, book, domain = key("host"), contracts.offer_book, contracts.deployment.settlement_domain
    terms = TERMS
    offer = Offer(host.address, AGENT, terms, 1, 2, 3, 40, await now(chain) + 10_000, b"d" * 32)
    assert await refused(book.publish(host, offer.sign(domain, key("thief")))) == "BadOffer"
    receipt = await book.publish(key("thief"), offer.sign(domain, host))
    assert receipt.logs[0].topics[1] == offer.digest(domain)
    assert await book.is_live(offer.sign(domain, host))
    await book.raise_floor(host, 41)
    assert await book.floor_of(host.address) == 41
    assert not await book.is_live(offer.sign(domain, host))
    assert await refused(book.publish(host, offer.sign(domain, host))) == "BelowFloor"


async def a_receipt(contracts: Contracts, chain: RpcChain, job: bytes) -> SignedReceipt:
    host = key("host")
    body = (job, 1, b"r" * 32, AGENT, TERMS, host.address, key("session").address, 0)
    receipt = Receipt(*body, 0, 5, 9, b"p" * 32, b"c" * 32, 1_000, 2_000, 23, Finish.STOP, await now(chain))
    return receipt.sign(contracts.deployment.court_domain, host)


async def judge(court: Any, chain: RpcChain, id_: Digest, verdict: Verdict) -> Dispute:
    """Draw, votes of the three who are drawn, ruling, appeal window, execution."""
    alice = key("alice")
    for _ in range(2):
        await chain.request("evm_mine", [])
    await court.draw(alice, id_)
    found = await court.dispute(id_)
    drawn = await court.jurors(id_, found.round)
    jurors = [one for one in map(key, ("host", "juror0", "juror1", "juror2")) if one.address in drawn]
    assert len(jurors) == 3
    assert found.accused not in drawn
    ballots = [Ballot(verdict, Digest(b"e" * 32), bytes([n]) * 32) for n in range(3)]
    for juror, ballot in zip(jurors, ballots, strict=True):
        await court.commit(juror, id_, ballot.commitment(id_, found.round, juror.address))
    for juror, ballot in zip(jurors, ballots, strict=True):
        await court.reveal(juror, id_, ballot)
    await court.tally(alice, id_)
    assert await refused(court.execute(alice, id_)) == "TooEarly"
    found = await court.dispute(id_)
    await travel(chain, found.appeal_by)
    await court.execute(alice, id_)
    ended: Dispute = await court.dispute(id_)
    assert (ended.phase, ended.verdict) == (Phase.CLOSED, verdict)
    return ended


async def punish_a_cheat(contracts: Contracts, chain: RpcChain) -> None:
    """A signed receipt, dispute, draw, votes, ruling, appeal window, slash, refund; then the host's jail."""
    alice, host, court = key("alice"), key("host"), contracts.court
    await travel(chain, await now(chain) + 2)
    id_ = await court.open(alice, await a_receipt(contracts, chain, b"j" * 32))
    ended = await judge(court, chain, id_, Verdict.GUILTY)
    assert ended.guilty == 3
    assert ended.accused == host.address
    assert not await contracts.staking.is_active(host.address)
    assert await contracts.staking.slashable(host.address) == 50
    assert await unsettled(contracts, court) == 0


async def dispute_an_anchored_receipt(contracts: Contracts, chain: RpcChain) -> None:
    """Under a root that the host anchored, a receipt opens a dispute whose signature in the leaf is not good."""
    alice, host, court = key("alice"), key("host"), contracts.court
    signed = [await a_receipt(contracts, chain, bytes([n]) * 32) for n in range(3)]
    bad = msgspec.structs.replace(signed[2], signature=signed[0].signature)
    leaves = [receipt_leaf(one) for one in (*signed[:2], bad)]
    pair = sha256(b"\x01" + leaves[0] + leaves[1])
    root = sha256(b"\x01" + pair + leaves[2])
    await court.anchor(host, root, 3)
    anchored = await court.anchor_of(host.address, root)
    assert anchored is not None
    assert (anchored.count, await court.anchors()) == (3, 1)
    assert await court.anchor_of(alice.address, root) is None
    await travel(chain, await now(chain) + 2)
    assert await refused(court.open(alice, bad)) == "BadReceipt"
    wrong = Proof(root, 1, (pair,))
    assert await refused(court.open_anchored(alice, bad, wrong)) == "NotAnchored"
    id_ = await court.open_anchored(alice, bad, Proof(root, 2, (pair,)))
    assert (await judge(court, chain, id_, Verdict.HONEST)).honest == 3
    assert await unsettled(contracts, court) == 0


async def dispute_a_bound_receipt(contracts: Contracts, chain: RpcChain) -> None:
    """One signature under many receipts: each opens a dispute with its own path, and with no other."""
    alice, host, court = key("alice"), key("host"), contracts.court
    receipts = [(await a_receipt(contracts, chain, bytes([n]) * 32)).value for n in range(11, 18)]
    domain = contracts.deployment.court_domain
    signatures = bind([one.digest(domain) for one in receipts], domain, host)
    bound = [Signed(receipt, signature) for receipt, signature in zip(receipts, signatures, strict=True)]
    await travel(chain, await now(chain) + 2)
    assert await refused(court.open(alice, Signed(receipts[3], signatures[2]))) == "BadReceipt"
    assert await refused(court.open(alice, Signed(receipts[3], Signature(signatures[3][:65])))) == "BadReceipt"
    for one in bound:
        one.check(domain, host.address)
    for one in (bound[0], bound[6]):  # a full path, and that of a leaf that is carried up
        await court.open(alice, one)
        found = await court.dispute(dispute_id(one.value, alice.address))
        assert (found.subject, found.accused) == (one.value.digest(domain), host.address)


async def contest_a_lineage(contracts: Contracts, chain: RpcChain) -> None:
    """Silence admits a hidden parent, an answer brings a committee; a table that underpays the parent is condemned."""
    maker, thief, court, registry = key("maker"), key("thief"), contracts.lineage_court, contracts.registry
    hidden, honest = AgentId(b"\xb1" * 32), AgentId(b"\xb2" * 32)
    for agent in (hidden, honest):
        await registry.register(thief, agent)
    table = (Party(thief.address, Role.MAKER, 1_000),)
    terms = await registry.agree_terms(thief, hidden, table)
    assert await refused(court.contest(thief, hidden, AGENT, b"e" * 32)) == "NotOwner"
    id_ = await court.contest(maker, hidden, AGENT, b"e" * 32)
    assert id_ == contest_id(hidden, AGENT, maker.address)
    found = await court.contest_of(id_)
    assert found is not None
    assert (found.agent, found.parent) == (hidden, AGENT)
    await travel(chain, found.answer_by)
    await court.uphold(thief, id_)
    adopted = await registry.agent(hidden)
    assert adopted is not None
    assert adopted.parent == AGENT
    assert [one.owner for one in await registry.ancestors(hidden)] == [maker.address]
    await registry.condemn(maker, hidden, table)
    condemned = await registry.terms(terms)
    assert condemned is not None
    assert condemned.sunset_at > await now(chain)
    other = await court.contest(maker, honest, AGENT, b"e" * 32)
    await court.answer(thief, other)
    await travel(chain, await now(chain) + 2)
    await judge(court, chain, other, Verdict.HONEST)
    left = await registry.agent(honest)
    assert left is not None
    assert not any(left.parent)
    assert await unsettled(contracts, court) == 0


async def change_a_parameter(contracts: Contracts, chain: RpcChain) -> None:
    """Proposed by the governor, seen by all, executed by anyone after the delay."""
    governor, thief = key("governor"), key("thief")
    parameters, timelock = contracts.parameters, contracts.timelock
    version, court = await parameters.court()
    assert (version, await parameters.governor()) == (0, timelock.address)
    change = parameters.court_change(msgspec.structs.replace(court, bond=Wei(9)))
    assert await refused(parameters.set_court(governor, court)) == "NotGovernor"
    assert await refused(timelock.schedule(thief, change)) == "AccessControlUnauthorizedAccount"
    assert await timelock.may_propose(governor.address)
    operation = await timelock.schedule(governor, change)
    assert (await timelock.operation(operation)).state is OperationState.WAITING
    assert await refused(timelock.execute(thief, change)) == "TimelockUnexpectedOperationState"
    await travel(chain, (await timelock.operation(operation)).ready_at)
    await timelock.execute(thief, change)
    assert (await timelock.operation(operation)).state is OperationState.DONE
    version, now_in_force = await parameters.court()
    assert (version, now_in_force.bond, (await parameters.court_at(0)).bond) == (1, 9, court.bond)
    assert (await contracts.court.params()).bond == 9
    market = (await parameters.market())[1]
    again = parameters.market_change(msgspec.structs.replace(market, promotion_slots=3))
    await timelock.cancel(governor, await timelock.schedule(governor, again))
    assert (await timelock.operation(again.id)).state is OperationState.UNSET
    assert await parameters.longest_dispute() + await parameters.oldest_receipt() < await contracts.staking.cooldown()
