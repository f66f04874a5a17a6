"""The real contracts over a real socket: the whole road of the money, the court, and equal hashes."""

import time
from typing import Any

import pytest

from integration.chain.served import CHAIN_ID, Chain, run
from lading_contracts.court import Ballot, Phase, Verdict
from lading_contracts.deploy import deploy
from lading_contracts.deployment import Contracts
from lading_contracts.errors import (
    Reverted,
)
from lading_contracts.events import Executed, Redeemed
from lading_contracts.follower import Cursor, Follower
from lading_contracts.registry import terms_id
from lading_contracts.rpc import RpcChain
from lading_contracts.settlement import Batch, ChannelKey
from lading_protocol.eip712 import Domain
from lading_protocol.ids import Digest
from lading_protocol.receipts import Finish, Lock, Offer, Receipt, SessionConsent, StakeConsent, Voucher
from property.chain_kit import AGENT, FAUCET, PARAMETERS, furnish, key, tables


async def settle_a_job(contracts: Contracts) -> None:
    """deposit, session key, signed lock and vouchers in a batch, claims, withdrawal: every wei accounted for."""
    alice, session, host, maker = key("alice"), key("session"), key("host"), key("maker")
    settlement, record = contracts.settlement, contracts.deployment
    domain = record.settlement_domain
    terms = terms_id(AGENT, tables()[AGENT])
    await settlement.deposit(alice, 600)
    consent = session.sign_digest(SessionConsent(alice.address).digest(domain))
    await settlement.authorize(alice, session.address, 500, int(time.time()) + 3_600, consent)
    batch = Batch(host.address, terms)
    lock = session.sign_digest(Lock(host.address, terms, 0, 400).digest(domain))
    own = alice.sign_digest(Lock(host.address, terms, 0, 50).digest(domain))
    await settlement.lock(host, batch, [(400, lock), (50, own)])
    vouchers = [
        (300, session.sign_digest(Voucher(host.address, terms, 0, 300).digest(domain))),
        (60, alice.sign_digest(Voucher(host.address, terms, 0, 60).digest(domain))),
        (200, session.sign_digest(Voucher(host.address, terms, 0, 200).digest(domain))),
    ]
    receipt = await settlement.redeem(host, batch, vouchers)
    assert len(receipt.logs) == 1
    with pytest.raises(Reverted) as caught:
        await settlement.redeem(host, batch, vouchers)
    assert caught.value.name == "NoProgress"
    channel = await settlement.channel(ChannelKey(session.address, host.address, terms))
    assert (channel.locked, channel.redeemed, channel.via_session) == (400, 300, True)
    earned = 350 * 3_334 // 10_000
    assert await settlement.earned(terms) == earned
    before = await contracts.coin.balance(maker.address)
    await settlement.claim(host, AGENT, tables()[AGENT], 0)
    with pytest.raises(Reverted) as caught:
        await settlement.claim(host, AGENT, tables()[AGENT], 1)
    assert caught.value.name == "NothingDue"
    assert await contracts.coin.balance(maker.address) - before == earned
    held = await contracts.coin.balance(host.address)
    await settlement.withdraw(alice, host.address)
    assert await contracts.coin.balance(host.address) - held == 350 - earned
    account = await settlement.account(alice.address)
    assert account.free == 150
    assert await contracts.coin.balance(settlement.address) == 150 + 100


async def punish_a_cheat(contracts: Contracts, chain: RpcChain) -> None:
    """stake, a signed receipt, dispute, draw, votes, ruling, appeal window, slash, refund; then the host's jail."""
    alice, host, owner = key("alice"), key("host"), key("owner")
    jurors = [key(f"juror{n}") for n in range(3)]
    record = contracts.deployment
    for operator in (host, *jurors):
        consent = operator.sign_digest(StakeConsent(owner.address).digest(record.staking_domain))
        staker, proof = (operator, b"") if operator is host else (owner, consent)
        await contracts.staking.stake(staker, operator.address, 100, proof)
    assert len(await contracts.staking.operators()) == 4
    now = int(time.time())
    body = (b"j" * 32, 1, b"r" * 32, AGENT, terms_id(AGENT, tables()[AGENT]), host.address, key("session").address, 0)
    receipt = Receipt(*body, 0, 5, 9, b"p" * 32, b"c" * 32, 1_000, 2_000, 23, Finish.STOP, now)
    await chain.request("evm_increaseTime", ["0x2"])
    id_ = await contracts.court.open(alice, receipt.sign(record.court_domain, host))
    await chain.request("evm_mine", [{"blocks": 2}])
    await contracts.court.draw(alice, id_)
    assert set(await contracts.court.jurors(id_, 1)) == {juror.address for juror in jurors}
    ballots = [Ballot(Verdict.GUILTY, Digest(b"e" * 32), bytes([n]) * 32) for n in range(3)]
    for juror, ballot in zip(jurors, ballots, strict=True):
        await contracts.court.commit(juror, id_, ballot.commitment(id_, 1, juror.address))
    for juror, ballot in zip(jurors, ballots, strict=True):
        await contracts.court.reveal(juror, id_, ballot)
    await contracts.court.tally(alice, id_)
    with pytest.raises(Reverted) as caught:
        await contracts.court.execute(alice, id_)
    assert caught.value.name == "TooEarly"
    await chain.request("evm_increaseTime", [hex(PARAMETERS.court.appeal_window + 1)])
    await contracts.court.execute(alice, id_)
    dispute = await contracts.court.dispute(id_)
    assert dispute is not None
    assert (dispute.phase, dispute.verdict, dispute.guilty) == (Phase.CLOSED, Verdict.GUILTY, 3)
    assert not await contracts.staking.is_active(host.address)
    assert await contracts.staking.slashable(host.address) == 50
    assert await contracts.coin.balance(contracts.court.address) == 0


ACTORS = ("alice", "host", "owner", "juror0", "juror1", "juror2")


def test_the_whole_road(served: Chain) -> None:
    async def main() -> None:
        chain = served.open()
        contracts = Contracts(chain, await deploy(chain, FAUCET, PARAMETERS))
        await contracts.check()
        await furnish(contracts, {name: key(name) for name in ACTORS}, coins=1_000)
        await settle_a_job(contracts)
        await punish_a_cheat(contracts, chain)
        follower = Follower(chain, contracts.deployment.names())
        batch = await follower.step(Cursor(contracts.deployment.block))
        assert batch is not None
        kinds = [entry.event for entry in batch.entries]
        assert [e.rows for e in kinds if isinstance(e, Redeemed)] == [2]
        executed = [e for e in kinds if isinstance(e, Executed)]
        assert [e.slashed for e in executed] == [50]
        assert executed[0].slashed == sum(
            (executed[0].burnt, executed[0].refunded, executed[0].fee, executed[0].reward)
        )
        await chain.close()

    run(main())


def test_python_and_solidity_hash_the_same(served: Chain) -> None:
    async def main() -> None:
        chain = served.open()
        contracts = Contracts(chain, await deploy(chain, FAUCET, PARAMETERS))
        a, b = key("a").address, key("b").address
        voucher = (a, b"t" * 32, 3, 2**96 - 1)
        offer = (a, b"g" * 32, b"t" * 32, 1, 2, 3, 4, 5, b"d" * 32)
        receipt = (b"j" * 32, 1, b"r" * 32, b"g" * 32, b"t" * 32, a, b, 2, 3, 4, 5, b"p" * 32, b"c" * 32, 6, 7, 8, 4, 9)
        settlement, staking, court = contracts.settlement, contracts.staking, contracts.court
        asked: list[tuple[Any, str, tuple[Any, ...], Any]] = [
            (settlement, "voucherDigest", voucher, Voucher(*voucher)),
            (settlement, "lockDigest", voucher, Lock(*voucher)),
            (settlement, "sessionConsentDigest", (a,), SessionConsent(a)),
            (settlement, "offerDigest", (offer,), Offer(*offer)),
            (staking, "stakeConsentDigest", (a,), StakeConsent(a)),
            (court, "receiptDigest", (receipt,), Receipt(*receipt)),
        ]
        for contract, function, arguments, paper in asked:
            (theirs,) = await contract._view(function, *arguments)
            assert paper.digest(Domain(CHAIN_ID, contract.address)) == theirs, function
        (theirs,) = await settlement._view("channelId", a, b, b"t" * 32, 7)
        assert ChannelKey(a, b, b"t" * 32, 7).id == theirs  # type: ignore[arg-type]
        (theirs,) = await court._view("voteCommitment", b"i" * 32, 2, a, 1, b"e" * 32, b"s" * 32)
        assert Ballot(Verdict.HONEST, Digest(b"e" * 32), b"s" * 32).commitment(b"i" * 32, 2, a) == theirs
        await chain.close()

    run(main())
