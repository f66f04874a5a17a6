"""Random operations on the real contracts and on the fake ones: the same events, refusals and balances, always."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from lading_contracts.court import Ballot, Verdict, dispute_id
from lading_contracts.deploy import deploy
from lading_contracts.deployment import Contracts
from lading_contracts.errors import Reverted
from lading_contracts.registry import terms_id
from lading_contracts.settlement import Batch, ChannelKey
from lading_protocol.ids import Digest, Wei
from lading_protocol.receipts import Finish, Lock, Receipt, SessionConsent, StakeConsent, Voucher
from property.chain_kit import AGENT, CHILD, FAUCET, PARAMETERS, START, Outcome, Verb, World, attempt, key, tables

PAYERS, SESSIONS, HOSTS = ("alice", "bob"), ("session1", "session2"), ("host1", "host2")
SIGNERS = (*PAYERS, *SESSIONS)
OPERATORS, OWNERS = ("host1", "op2", "op3", "op4"), ("host1", "cold")
AGENTS = (AGENT, CHILD)


def mostly(first: Any, *others: Any) -> st.SearchStrategy[Any]:
    """The first three times out of four: operations must meet each other to be worth anything."""
    return st.sampled_from((first,) * 3 * len(others) + others)


payer, session, signer = mostly(*PAYERS), mostly(*SESSIONS), mostly("session1", "alice", "bob", "session2")
host, agent, epoch = mostly(*HOSTS), mostly(*AGENTS), mostly(0, 1)
operator, owner = st.sampled_from(OPERATORS), mostly("cold", "host1")
amount = st.sampled_from((0, 1, 7, 11, 20, 29, 30, 31, 41, 60))
spoiled = mostly(False, True)
rows = st.lists(st.tuples(signer, amount, spoiled), min_size=1, max_size=3)
k = st.integers(0, 3)


def op(name: str, *parts: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.tuples(st.just(name), *parts)


money = st.one_of(
    op("deposit", payer, amount),
    op("deposit_for", payer, signer, amount),
    op("authorize", payer, session, amount, st.sampled_from((-5, 8, 40)), mostly(True, False)),
    op("revoke", payer, session),
    op("request_exit", payer, amount),
    op("finish_exit", payer),
    op("lock", host, agent, epoch, rows),
    op("redeem", host, agent, epoch, rows),
    op("lock_and_redeem", host, agent, epoch, rows, rows),
    op("start_close", payer, signer, host, agent, epoch),
    op("finish_close", payer, signer, host, agent, epoch),
    op("set_payout", host, host, payer),
    op("withdraw", host),
    op("claim", agent, k),
    op("claim_many", st.sampled_from(("maker", "curator")), st.lists(st.tuples(agent, k), max_size=3)),
    op("wait", st.sampled_from((1, 9, 10))),
)
stakes = st.one_of(
    op("stake", owner, operator, amount, mostly(True, False)),
    op("request_unstake", owner, operator, amount),
    op("finish_unstake", operator),
    op("unjail", operator),
    op("wait", st.sampled_from((1, 99, 100))),
)
case = mostly(0, 1)
penalty = st.one_of(
    op("request_unstake", owner, operator, amount),
    op("finish_unstake", operator),
    op("open", mostly("alice", "op2"), case, mostly(False, True)),
    op("draw", case),
    op("commit", operator, case, mostly(Verdict.GUILTY, Verdict.HONEST)),
    op("reveal", operator, case),
    op("tally", case),
    op("appeal", mostly("alice", "host1", "cold"), case),
    op("execute", case),
    op("mine", st.integers(1, 2)),
    op("wait", st.sampled_from((1, 10, 20))),
)


class Script:
    """Turns one operation into a verb that works on either chain."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ballots: dict[tuple[str, int], tuple[Ballot, int]] = {}
        self.openers: dict[int, str] = {}

    def verb(self, name: str, *given: Any) -> Verb:
        return getattr(self, f"_{name}")(*given)  # type: ignore[no-any-return]

    def _signed(self, kind: type[Lock] | type[Voucher], host: str, agent: bytes, epoch: int, rows: Any) -> Any:
        domain = self.world.deployment.settlement_domain
        packed = []
        for signer, cumulative, spoiled in rows:
            paper = kind(key(host).address, self._terms(agent), epoch, cumulative)
            signature = key(signer).sign_digest(paper.digest(domain))
            packed.append((cumulative + 1, signature) if spoiled else (cumulative, signature))
        return packed

    def _terms(self, agent: Any) -> Any:
        return terms_id(agent, tables()[agent])

    def _batch(self, host: str, agent: bytes, epoch: int) -> Batch:
        return Batch(key(host).address, self._terms(agent), epoch)

    def _deposit(self, payer: str, amount: int) -> Verb:
        return lambda c: c.settlement.deposit(key(payer), amount)

    def _deposit_for(self, sender: str, payer: str, amount: int) -> Verb:
        return lambda c: c.settlement.deposit_for(key(sender), key(payer).address, amount)

    def _authorize(self, payer: str, session: str, cap: int, until: int, good: bool) -> Verb:
        signer = key(session if good else "stranger")
        consent = signer.sign_digest(SessionConsent(key(payer).address).digest(self.world.deployment.settlement_domain))
        expiry = self.world.clock.now + until
        return lambda c: c.settlement.authorize(key(payer), key(session).address, cap, expiry, consent)

    def _revoke(self, payer: str, session: str) -> Verb:
        return lambda c: c.settlement.revoke(key(payer), key(session).address)

    def _request_exit(self, payer: str, amount: int) -> Verb:
        return lambda c: c.settlement.request_exit(key(payer), amount)

    def _finish_exit(self, payer: str) -> Verb:
        return lambda c: c.settlement.finish_exit(key(payer))

    def _lock(self, host: str, agent: bytes, epoch: int, rows: Any) -> Verb:
        signed = self._signed(Lock, host, agent, epoch, rows)
        return lambda c: c.settlement.lock(key(host), self._batch(host, agent, epoch), signed)

    def _redeem(self, host: str, agent: bytes, epoch: int, rows: Any) -> Verb:
        signed = self._signed(Voucher, host, agent, epoch, rows)
        return lambda c: c.settlement.redeem(key("alice"), self._batch(host, agent, epoch), signed)

    def _lock_and_redeem(self, host: str, agent: bytes, epoch: int, locks: Any, vouchers: Any) -> Verb:
        first = self._signed(Lock, host, agent, epoch, locks)
        second = self._signed(Voucher, host, agent, epoch, vouchers)
        return lambda c: c.settlement.lock_and_redeem(key(host), self._batch(host, agent, epoch), first, second)

    def _channel(self, signer: str, host: str, agent: bytes, epoch: int) -> ChannelKey:
        return ChannelKey(key(signer).address, key(host).address, self._terms(agent), epoch)

    def _start_close(self, payer: str, *channel: Any) -> Verb:
        return lambda c: c.settlement.start_close(key(payer), self._channel(*channel))

    def _finish_close(self, payer: str, *channel: Any) -> Verb:
        return lambda c: c.settlement.finish_close(key(payer), self._channel(*channel))

    def _set_payout(self, sender: str, host: str, payout: str) -> Verb:
        return lambda c: c.settlement.set_payout(key(sender), key(host).address, key(payout).address)

    def _withdraw(self, host: str) -> Verb:
        return lambda c: c.settlement.withdraw(key("alice"), key(host).address)

    def _claim(self, agent: Any, k: int) -> Verb:
        return lambda c: c.settlement.claim(key("alice"), agent, tables()[agent], k)

    def _claim_many(self, payee: str, shares: Any) -> Verb:
        table = [(agent, tables()[agent], k) for agent, k in shares]
        return lambda c: c.settlement.claim_many(key("alice"), key(payee).address, table)

    # --- stakes and disputes ---

    def _stake(self, owner: str, operator: str, amount: int, good: bool) -> Verb:
        signer = key(operator if good else "stranger")
        consent = signer.sign_digest(StakeConsent(key(owner).address).digest(self.world.deployment.staking_domain))
        return lambda c: c.staking.stake(key(owner), key(operator).address, amount, consent)

    def _request_unstake(self, owner: str, operator: str, amount: int) -> Verb:
        return lambda c: c.staking.request_unstake(key(owner), key(operator).address, amount)

    def _finish_unstake(self, operator: str) -> Verb:
        return lambda c: c.staking.finish_unstake(key("alice"), key(operator).address)

    def _unjail(self, operator: str) -> Verb:
        return lambda c: c.staking.unjail(key("alice"), key(operator).address)

    def _receipt(self, n: int) -> Receipt:
        host, signer = key("host1").address, key("alice").address
        body = (
            bytes([n]) * 32,
            0,
            b"r" * 32,
            AGENT,
            self._terms(AGENT),
            host,
            signer,
            0,
            0,
            5,
            9,
            b"p" * 32,
            b"c" * 32,
        )
        return Receipt(*body, 1_000, 2_000, 23, Finish.STOP, START + 990)

    def _id(self, n: int) -> Digest:
        """The last dispute about a receipt that somebody tried to open."""
        return dispute_id(self._receipt(n), key(self.openers.get(n, "alice")).address)

    def _open(self, challenger: str, n: int, forged: bool) -> Verb:
        self.openers[n] = challenger
        receipt = self._receipt(n)
        signed = receipt.sign(self.world.deployment.court_domain, key("op2" if forged else "host1"))
        return lambda c: c.court.open(key(challenger), signed)

    def _draw(self, n: int) -> Verb:
        return lambda c: c.court.draw(key("alice"), self._id(n))

    def _commit(self, juror: str, n: int, verdict: Verdict) -> Verb:
        id_ = self._id(n)
        found = self.world.run(Contracts(self.world.fake, self.world.deployment).court.dispute(id_))
        round_ = 0 if found is None else found.round
        ballot = Ballot(verdict, Digest(b"e" * 32), b"s" * 32)
        self.ballots[juror, n] = (ballot, round_)
        return lambda c: c.court.commit(key(juror), id_, ballot.commitment(id_, round_, key(juror).address))

    def _reveal(self, juror: str, n: int) -> Verb:
        ballot, _ = self.ballots.get((juror, n), (Ballot(Verdict.HONEST, Digest(b"e" * 32), b"s" * 32), 0))
        return lambda c: c.court.reveal(key(juror), self._id(n), ballot)

    def _tally(self, n: int) -> Verb:
        return lambda c: c.court.tally(key("alice"), self._id(n))

    def _appeal(self, who: str, n: int) -> Verb:
        return lambda c: c.court.appeal(key(who), self._id(n))

    def _execute(self, n: int) -> Verb:
        return lambda c: c.court.execute(key("alice"), self._id(n))


async def books(contracts: Contracts, actors: tuple[str, ...]) -> dict[str, Any]:
    """Everything that money can be in."""
    found: dict[str, Any] = {"supply": await contracts.coin.supply()}
    addresses = {name: key(name).address for name in (*actors, "maker", "oem", "curator")}
    addresses |= {
        contract.NAME: contract.address for contract in (contracts.settlement, contracts.staking, contracts.court)
    }
    for name, address in addresses.items():
        found[f"coin {name}"] = await contracts.coin.balance(address)
        found[f"account {name}"] = await contracts.settlement.account(address)
        found[f"host {name}"] = await contracts.settlement.host_balance(address)
        found[f"operator {name}"] = await contracts.staking.operator(address)
    for name in SESSIONS:
        found[f"session {name}"] = await contracts.settlement.session(key(name).address)
    for agent, parties in tables().items():
        terms = terms_id(agent, parties)
        found[f"gross {agent!r}"] = await contracts.settlement.gross(terms)
        found[f"claimable {agent!r}"] = [
            await contracts.settlement.claimable(agent, parties, k) for k in range(len(parties))
        ]
    found["operators"] = await contracts.staking.operators()
    return found


def play(world: World, actors: tuple[str, ...], script: list[tuple[Any, ...]]) -> list[Outcome]:
    real, fake = world.reset()
    reader = Script(world)
    outcomes = []
    for name, *given_ in script:
        if name == "wait":
            world.clock.now += given_[0]
            continue
        if name == "mine":
            world.mine(given_[0])
            continue
        verb = reader.verb(name, *given_)
        on_real, on_fake = (world.run(attempt(contracts, verb)) for contracts in (real, fake))
        assert on_real == on_fake, (name, given_)
        outcomes.append(on_real)
    assert world.run(books(real, actors)) == world.run(books(fake, actors))
    return outcomes


ENOUGH = settings(
    max_examples=20,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
MONEY_ACTORS = (*SIGNERS, *HOSTS)
PENALTY_ACTORS = ("alice", *OPERATORS, "cold")


@pytest.fixture(scope="module")
def money_world() -> Iterator[World]:
    world = World(MONEY_ACTORS)
    yield world
    world.close()


@pytest.fixture(scope="module")
def penalty_world() -> Iterator[World]:
    world = World(PENALTY_ACTORS)
    yield world
    world.close()


@ENOUGH
@given(script=st.lists(money, min_size=4, max_size=14))
def test_money_moves_alike(money_world: World, script: list[tuple[Any, ...]]) -> None:
    funded = [("deposit", "alice", 40), ("authorize", "alice", "session1", 30, 35, True), *script]
    play(money_world, MONEY_ACTORS, funded)


@ENOUGH
@given(script=st.lists(stakes, min_size=4, max_size=14))
def test_stakes_move_alike(penalty_world: World, script: list[tuple[Any, ...]]) -> None:
    staked = [("stake", "cold", name, 60, True) for name in OPERATORS[1:]]
    play(penalty_world, PENALTY_ACTORS, staked + script)


@ENOUGH
@given(script=st.lists(penalty, min_size=4, max_size=14))
def test_disputes_move_alike(penalty_world: World, script: list[tuple[Any, ...]]) -> None:
    staked = [("stake", "cold", name, 60, True) for name in OPERATORS[1:]]
    opened = [("stake", "host1", "host1", 80, True), *staked, ("wait", 1), ("open", "alice", 0, False), ("mine", 2)]
    play(penalty_world, PENALTY_ACTORS, opened + script)


def test_a_guilty_host_is_slashed_alike(penalty_world: World) -> None:
    """The whole road through an appeal, so that the random walks above need not find it."""
    jurors = OPERATORS[1:]
    voting = [("commit", juror, 0, Verdict.GUILTY) for juror in jurors] + [("reveal", juror, 0) for juror in jurors]
    script = [
        ("stake", "host1", "host1", 81, True),
        *[("stake", "cold", name, 60, True) for name in jurors],
        ("wait", 1),
        ("open", "alice", 0, False),
        ("mine", 2),
        *[("draw", 0), *voting, ("tally", 0)],
        *[("appeal", "host1", 0), ("mine", 2), ("draw", 0), *voting, ("tally", 0)],
        ("execute", 0),
        ("wait", 11),
        ("execute", 0),
        ("unjail", "host1"),
        ("wait", 31),
        ("stake", "host1", "host1", 30, True),
    ]
    outcomes = play(penalty_world, PENALTY_ACTORS, script)
    refused = [outcome.refused for outcome in outcomes if outcome.refused]
    assert refused == ["TooEarly", "TooEarly"]
    slashed = [event for outcome in outcomes for event in outcome.events if event.startswith("Slashed(")]
    assert len(slashed) == 1
    assert "amount=40" in slashed[0]


def test_a_closed_channel_never_opens_again(money_world: World) -> None:
    channel = ("alice", "host1", AGENT, 0)
    script = [
        ("deposit", "alice", 60),
        ("lock", "host1", AGENT, 0, [("alice", 30, False)]),
        ("start_close", "alice", *channel),
        ("redeem", "host1", AGENT, 0, [("alice", 11, False)]),
        ("start_close", "alice", *channel),
        ("finish_close", "bob", *channel),
        ("wait", 10),
        ("finish_close", "bob", *channel),
        ("lock", "host1", AGENT, 0, [("alice", 60, False)]),
        ("redeem", "host1", AGENT, 0, [("alice", 30, False)]),
        ("lock", "host1", AGENT, 1, [("alice", 60, False)]),
    ]
    refused = [outcome.refused for outcome in play(money_world, MONEY_ACTORS, script) if outcome.refused]
    assert refused == ["NotClosable", "TooEarly", "NoProgress", "NoProgress"]


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"exit_delay": 90 * 86_400 + 1}, "DelayTooLong"),
        ({"close_delay": 90 * 86_400 + 1}, "DelayTooLong"),
        ({"cooldown": 365 * 86_400 + 1}, "CooldownTooLong"),
        ({"cooldown": 99}, "BadParams"),
        ({"min_stake": Wei(0)}, "ZeroAmount"),
        ({"supply": Wei(2**96)}, "SupplyTooLarge"),
        ({"court": replace(PARAMETERS.court, quorum=1)}, "BadParams"),
        ({"court": replace(PARAMETERS.court, burn_bps=5_000)}, "BadParams"),
        ({"court": replace(PARAMETERS.court, draw_delay_blocks=201)}, "BadParams"),
    ],
)
def test_bad_parameters_are_refused_alike(money_world: World, change: dict[str, Any], refused: str) -> None:
    money_world.reset()
    for chain in money_world.chains():
        with pytest.raises(Reverted) as caught:
            money_world.run(deploy(chain, FAUCET, replace(PARAMETERS, **change)))
        assert caught.value.name == refused
