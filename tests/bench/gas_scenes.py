"""The verbs whose gas is measured, one scene each, with the state as a running network has it.

A scene is a coroutine of a stage: it prepares, then measures under a name. A new verb is a new scene, named in SCENES.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias

from lading_contracts.coin import Permit, ReceiveWithAuthorization
from lading_contracts.court import Ballot, Verdict, dispute_id
from lading_contracts.registry import Consents, Party, Role, terms_id
from lading_contracts.settlement import Batch, ChannelKey, Row
from lading_protocol.ids import AgentId, TermsId
from lading_protocol.keys import PrivateKey, keccak256
from lading_protocol.receipts import Finish, Lock, Receipt, SessionConsent, TermsConsent, Voucher, compact

from .gas_stage import COIN, START, Stage, Words

Scene: TypeAlias = Callable[[Stage], Awaitable[None]]
AGENT = AgentId(keccak256(b"agent"))
PARTIES = (
    ("maker", Role.MAKER, 1_500),
    ("oem", Role.OEM, 800),
    ("weaver", Role.WEAVER, 400),
    ("curator", Role.CURATOR, 300),
    ("auditor", Role.CURATOR, 100),
)


# -- what the scenes share ---------------------------------------------------------------------------------------------


def five(stage: Stage) -> tuple[Party, ...]:
    """A split table of five parties; the host keeps 69 %."""
    return tuple(Party(stage.key(name).address, role, bps) for name, role, bps in PARTIES)


def consents(stage: Stage, agent: bytes) -> Consents:
    """The signatures of the four parties that are not the maker, which sends the table."""
    domain, until = stage.contracts.deployment.registry_domain, START + 10**8
    words = TermsConsent(terms_id(agent, five(stage)), until)
    keys = [stage.key(name) for name, _, _ in PARTIES[1:]]
    return Consents(until, {key.address: compact(words.sign(domain, key).signature) for key in keys})


async def agreed(stage: Stage, agent: AgentId = AGENT) -> TermsId:
    """The table of five of an agent whose owner is the maker, agreed once."""
    maker, table = await stage.actor("maker"), five(stage)
    if await stage.contracts.registry.agent(agent) is None:
        await stage.contracts.registry.register(maker, agent)
        await stage.contracts.registry.agree_terms(maker, agent, table, consents(stage, agent))
    return terms_id(agent, table)


async def payers(stage: Stage, count: int) -> list[PrivateKey]:
    """Consumers with a deposit and no gas of their own: they only sign. Each is as rich as no lock can empty."""
    keys = [stage.key(f"payer {number}") for number in range(count)]
    for key in keys:
        if (await stage.contracts.settlement.account(key.address)).free < 1_000 * COIN:
            await stage.contracts.settlement.deposit_for(stage.faucet, key.address, 2_000 * COIN + 77)
    return keys


def amount(base: int, number: int) -> int:
    """Wei as metered work comes to: no round figure, so that its bytes cost what they do in life."""
    return base + int.from_bytes(keccak256(number.to_bytes(4, "big"))[:6], "big")


def locks(stage: Stage, batch: Batch, keys: Iterable[PrivateKey], base: int) -> list[Row]:
    domain = stage.contracts.deployment.settlement_domain
    rows = [(amount(base, at), key) for at, key in enumerate(keys)]
    return [(sum_, Lock(batch.host, batch.terms, batch.epoch, sum_).sign(domain, key).signature) for sum_, key in rows]


def vouchers(stage: Stage, batch: Batch, keys: Iterable[PrivateKey], base: int) -> list[Row]:
    domain = stage.contracts.deployment.settlement_domain
    rows = [(amount(base, at), key) for at, key in enumerate(keys)]
    return [
        (sum_, Voucher(batch.host, batch.terms, batch.epoch, sum_).sign(domain, key).signature) for sum_, key in rows
    ]


async def earning(stage: Stage, name: str, terms: TermsId, cumulative: int) -> PrivateKey:
    """A host with a balance in the contract, paid through one channel up to `cumulative`."""
    host = await stage.actor(name)
    batch = Batch(host.address, terms)
    (payer,) = await payers(stage, 1)
    channel = await stage.contracts.settlement.channel(ChannelKey(payer.address, host.address, terms))
    if not channel.locked:
        await stage.contracts.settlement.lock(host, batch, locks(stage, batch, [payer], 100 * COIN))
    await stage.contracts.settlement.redeem(host, batch, vouchers(stage, batch, [payer], cumulative))
    return host


# -- the scenes --------------------------------------------------------------------------------------------------------


async def erc20_transfer(stage: Stage) -> None:
    sender, receiver = await stage.actor("sender"), await stage.actor("receiver")
    state = "both balances stay above nought"
    await stage.measure(
        "gas_erc20_transfer", stage.contracts.coin.transfer(sender, receiver.address, 12_345 * 10**12), Words(state)
    )


async def deposit(stage: Stage) -> None:
    payer = await stage.actor("depositor", stage.contracts.settlement)
    settlement = stage.contracts.settlement
    await settlement.deposit(payer, 10 * COIN)
    state = "a later deposit by the payer; its coins and the contract's stay above nought"
    await stage.measure("gas_deposit", settlement.deposit(payer, 3 * COIN), Words(f"{state}; endless allowance"))


async def deposit_with_permit(stage: Stage) -> None:
    payer, settlement = (
        await stage.actor("permitting depositor", stage.contracts.settlement),
        stage.contracts.settlement,
    )
    domain, until = await stage.contracts.coin.domain(), START + 10**8
    await settlement.deposit(payer, 10 * COIN)
    await stage.contracts.coin.approve(payer, settlement.address, 0)

    async def pay(nonce: int) -> None:
        permit = Permit(payer.address, settlement.address, 3 * COIN, nonce, until)
        signature = payer.sign_digest(domain.digest(permit))
        await settlement.deposit_with_permit(payer, permit.value, until, signature)

    await pay(0)
    await stage.measure(
        "gas_deposit_with_permit", pay(1), Words("a later permit and deposit: no approval was sent before")
    )


async def deposit_with_authorization(stage: Stage) -> None:
    payer, settlement = await stage.actor("authorizing depositor"), stage.contracts.settlement
    domain = await stage.contracts.coin.domain()

    async def pay(nonce: bytes) -> None:
        paper = ReceiveWithAuthorization(payer.address, settlement.address, 3 * COIN, 0, START + 10**8, nonce)
        await settlement.deposit_with_authorization(stage.faucet, paper, payer.sign_digest(domain.digest(paper)))

    await pay(keccak256(b"one"))
    words = "ERC-3009, sent by another, who pays the gas; a later deposit"
    await stage.measure("gas_deposit_with_authorization", pay(keccak256(b"two")), Words(words))


async def redeem(stage: Stage) -> None:
    terms, host = await agreed(stage), await stage.actor("host")
    await stage.coins(*(party.payee for party in five(stage)))
    for count in stage.batches:
        batch, keys = Batch(host.address, terms, epoch=count), await payers(stage, count)
        await stage.contracts.settlement.lock(host, batch, locks(stage, batch, keys, 10 * COIN))
        await stage.contracts.settlement.redeem(host, batch, vouchers(stage, batch, keys, COIN // 1_000))
        await stage.measure(
            f"gas_per_voucher_k{count}",
            stage.contracts.settlement.redeem(host, batch, vouchers(stage, batch, keys, COIN // 100)),
            Words(
                "channels redeemed before; the host and the pool of five parties have earned before",
                {50: 10_800, 200: 10_300}.get(count),
            ),
            per=count,
        )


async def lock(stage: Stage) -> None:
    host = await stage.actor("host")
    batch, keys = Batch(host.address, await agreed(stage), epoch=1_000), await payers(stage, stage.locks)
    state = f"the payer's own key, batch of {stage.locks}; deposits stay above nought"
    for name, base, bar, words in (
        ("gas_lock_first", COIN, 38_000, "the first lock of each channel"),
        ("gas_lock_top_up", 2 * COIN, None, "channels that were locked before"),
    ):
        verb = stage.contracts.settlement.lock(host, batch, locks(stage, batch, keys, base))
        await stage.measure(name, verb, Words(f"{state}; {words}", bar), per=stage.locks)


async def lock_by_session(stage: Stage) -> None:
    payer, host, settlement = (
        await stage.actor("session payer", stage.contracts.settlement),
        await stage.actor("host"),
        stage.contracts.settlement,
    )
    await settlement.deposit(payer, 1_000 * COIN)
    keys = [stage.key(f"session {number}") for number in range(stage.locks)]
    domain, words = stage.contracts.deployment.settlement_domain, SessionConsent(payer.address)
    for number, key in enumerate(keys):
        consent = words.sign(domain, key).signature
        verb = settlement.authorize(payer, key.address, 10 * COIN, START + 10**8, consent)
        if number:
            await verb
        else:
            await stage.measure(
                "gas_authorize_session", verb, Words("a new session key of the payer, with its consent")
            )
    batch = Batch(host.address, await agreed(stage), epoch=1_001)
    state = f"{stage.locks} session keys of one payer in a batch"
    first = settlement.lock(host, batch, locks(stage, batch, keys, COIN))
    await stage.measure("gas_lock_first_by_session", first, Words(f"{state}; the first lock of each"), per=stage.locks)
    again = settlement.lock(host, batch, locks(stage, batch, keys, 2 * COIN))
    await stage.measure("gas_lock_top_up_by_session", again, Words(f"{state}; locked before"), per=stage.locks)


async def claim(stage: Stage) -> None:
    terms, oem = await agreed(stage), await stage.actor("oem")
    await earning(stage, "claim's host", terms, COIN)
    await stage.contracts.settlement.claim(oem, AGENT, five(stage), 1)
    await earning(stage, "claim's host", terms, 2 * COIN)
    verb = stage.contracts.settlement.claim(oem, AGENT, five(stage), 1)
    await stage.measure("gas_claim", verb, Words("one of five parties, which claimed before and has coins", 52_000))


async def claim_many(stage: Stage) -> None:
    oem, shares = await stage.actor("oem"), []
    agents = [AgentId(keccak256(b"agent" + bytes([number]))) for number in range(10)]
    for agent in agents:
        await earning(stage, "claim's host", await agreed(stage, agent), COIN)
        shares.append((agent, five(stage), 1))
    await stage.contracts.settlement.claim_many(oem, oem.address, shares)
    for agent in agents:
        await earning(stage, "claim's host", await agreed(stage, agent), 2 * COIN)
    verb = stage.contracts.settlement.claim_many(oem, oem.address, shares)
    await stage.measure("gas_claim_of_ten", verb, Words("ten tables in one transaction, all claimed before"), per=10)


async def withdraw(stage: Stage) -> None:
    terms, settlement = await agreed(stage), stage.contracts.settlement
    host = await earning(stage, "withdrawing host", terms, COIN)
    verb = settlement.withdraw(host, host.address)
    await stage.measure("gas_withdraw", verb, Words("by the host to itself; it has coins already", 38_000))
    cold = stage.key("cold wallet")
    await stage.coins(cold.address)
    await settlement.set_payout(host, host.address, cold.address)
    await earning(stage, "withdrawing host", terms, 2 * COIN)
    verb = settlement.withdraw(host, host.address)
    words = "to a payout address that has coins; the host's slot keeps it, so nothing is given back for clearing"
    await stage.measure("gas_withdraw_to_payout", verb, Words(words))


async def close(stage: Stage) -> None:
    payer, host, settlement = (
        await stage.actor("closing payer", stage.contracts.settlement),
        await stage.actor("host"),
        stage.contracts.settlement,
    )
    await settlement.deposit(payer, 50 * COIN)
    batch = Batch(host.address, await agreed(stage), epoch=1_002)
    await settlement.lock(host, batch, locks(stage, batch, [payer], 10 * COIN))
    await settlement.redeem(host, batch, vouchers(stage, batch, [payer], COIN))
    channel = ChannelKey(payer.address, host.address, batch.terms, batch.epoch)
    await stage.measure(
        "gas_start_close", settlement.start_close(payer, channel), Words("of a channel partly redeemed")
    )
    await stage.skip(await settlement.close_delay() + 1)
    words = "the rest goes back to a deposit that is not empty"
    await stage.measure("gas_finish_close", settlement.finish_close(payer, channel), Words(words))


async def terms_of_five(stage: Stage) -> None:
    agent, maker = AgentId(keccak256(b"agent of the table")), await stage.actor("maker")
    await stage.contracts.registry.register(maker, agent)
    verb = stage.contracts.registry.agree_terms(maker, agent, five(stage), consents(stage, agent))
    words = "a new table, sent by the maker with the signatures of the other four"
    await stage.measure("gas_terms_of_five", verb, Words(words, 80_000))


async def anchor(stage: Stage) -> None:
    host = await stage.actor("host")
    await stage.contracts.court.anchor(host, keccak256(b"an earlier root"), 900)
    verb = stage.contracts.court.anchor(host, keccak256(b"root"), 1_000)
    await stage.measure("gas_anchor", verb, Words("the root of an epoch's receipts; not the first root"))


async def dispute(stage: Stage) -> None:
    staking, court, record = stage.contracts.staking, stage.contracts.court, stage.contracts.deployment
    operators = [await stage.actor(f"operator {number}", staking, court) for number in range(8)]
    accused, challenger = operators[0], await stage.actor("challenger", court)
    for operator in operators:
        await staking.stake(operator, operator.address, 2_000 * COIN)
        await court.lodge(operator, operator.address, 50 * COIN)
    (consumer,) = await payers(stage, 1)
    terms = await agreed(stage)
    ids = keccak256(b"job"), 1, keccak256(b"request"), AGENT, terms, accused.address, consumer.address, 0
    hashes = keccak256(b"prompt"), keccak256(b"commitment")
    receipt = Receipt(*ids, 0, 812, 1_377, *hashes, 10**12, 3 * 10**12, amount(COIN // 100, 1), Finish.STOP, START)
    signed = receipt.sign(record.court_domain, accused)
    await stage.skip(2)
    opening = court.open(challenger, signed)
    await stage.measure("gas_dispute_open", opening, Words("a receipt signed by the host; with the bond"))
    id_ = dispute_id(receipt, challenger.address)
    await stage.skip(1, blocks=(await court.params()).draw_delay_blocks + 1)
    await stage.measure("gas_dispute_draw", court.draw(challenger, id_), Words("three of seven operators", lot=True))
    keys = {operator.address: operator for operator in operators}
    jurors = [keys[address] for address in await court.jurors(id_, 1)]
    ballots = [Ballot(Verdict.GUILTY, keccak256(b"report"), keccak256(juror.address)) for juror in jurors]

    async def commit() -> None:
        for juror, ballot in zip(jurors, ballots, strict=True):
            await court.commit(juror, id_, ballot.commitment(id_, 1, juror.address))

    async def reveal() -> None:
        for juror, ballot in zip(jurors, ballots, strict=True):
            await court.reveal(juror, id_, ballot)

    await stage.measure("gas_dispute_commit", commit(), Words("mean of the three jurors", lot=True), per=3)
    await stage.measure(
        "gas_dispute_reveal", reveal(), Words("mean of the three jurors, who all find it guilty", lot=True), per=3
    )
    await stage.measure("gas_dispute_tally", court.tally(challenger, id_), Words())
    await stage.skip((await court.params()).appeal_window + 1)
    words = "slash, burn, rewards of three jurors and finder, their deposits free again, refund to the consumer"
    await stage.measure("gas_dispute_execute", court.execute(challenger, id_), Words(words, lot=True))
    parts = [f"gas_dispute_{step}" for step in ("open", "draw", "commit", "reveal", "tally", "execute")]
    words = "all ten transactions, from open to execute"
    stage.together("gas_dispute_verdict_of_three", parts, Words(words, lot=True))


SCENES: tuple[Scene, ...] = (
    erc20_transfer,
    dispute,
    deposit,
    deposit_with_permit,
    deposit_with_authorization,
    redeem,
    lock,
    lock_by_session,
    claim,
    claim_many,
    withdraw,
    close,
    terms_of_five,
    anchor,
)
"""In the order of the report but for the dispute, whose receipt must be fresh."""
