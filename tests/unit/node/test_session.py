"""The host's machine, event by event: feed this, expect that."""

import msgspec
import pytest

from factories import NOW, chat_request, contract, embed_request, key, known_offer
from lading_node.core import channel as channels
from lading_node.core.admission import Account, Admitted, admit
from lading_node.core.attempt import Phase
from lading_node.core.channel import Channel, ChannelId
from lading_node.core.events import (
    EngineFailed,
    EngineRows,
    EngineRun,
    Gone,
    Opened,
    Paid,
    PauseEngine,
    Persisted,
    PersistFailed,
    PersistVoucher,
    Record,
    ResumeEngine,
    Send,
    SendReceipt,
    StartEngine,
    StopEngine,
    Stopped,
    SubmitLock,
)
from lading_node.core.proof import Prompt
from lading_protocol import job
from lading_protocol.eip712 import Domain
from lading_protocol.ids import Wei
from lading_protocol.messages import Accept, Cancel, Done, Fail, Refuse, Tokens
from lading_protocol.receipts import Finish, Lock, Voucher
from lading_protocol.transcript import prompt_hash
from unit.node.world import HOST, NET, PAYER, PROMPT, TERMS, World


def refusal(world: World, **changes: object) -> Refuse:
    """What an Open that is changed so is answered."""
    facts = {name: changes.pop(name) for name in list(changes) if name in Opened.__struct_fields__ + FACTS}
    play = world.open(**changes)
    play.feed(Opened(world.facts(**facts)))
    assert play.session.phase is Phase.OVER
    assert play.hung_up
    assert not any(isinstance(effect, StartEngine) for effect in play.effects)
    (sent,) = [effect.message for effect in play.effects if isinstance(effect, Send)]
    assert isinstance(sent, Refuse)
    assert sent.message.endswith(".")
    return sent


FACTS = ("offer", "free_slots", "closed", "channel", "account", "chain_error", "seen", "now")
RICH = Account(PAYER.address, Wei(10**15), Wei(10**15))


def channel(**changes: object) -> Channel:
    return msgspec.structs.replace(Channel(ChannelId(PAYER.address, TERMS, 0), locked=Wei(10**12)), **changes)


def other_voucher(host=HOST.address, terms=TERMS, epoch=0, domain=NET.settlement_domain, by=PAYER) -> bytes:
    return Voucher(host, terms, epoch, 5).sign(domain, by).pack()


REFUSALS = [
    ("version", {"version": 99}),
    ("offer_unknown", {"offer": None}),
    ("offer_expired", {"now": NOW + 4000}),
    ("unavailable", {"closed": "The engine is being restarted."}),
    ("busy", {"free_slots": 0}),
    ("busy", {"seen": True}),
    ("bad_request", {"request": embed_request("a"), "emitted": (1,)}),
    ("bad_request", {"request": chat_request(max_tokens=2), "emitted": (1, 2)}),
    ("too_long", {"request": chat_request(max_tokens=4096)}),
    ("channel_closed", {"channel": channel(closing=True)}),
    ("bad_voucher", {"voucher": other_voucher(host=key("another").address)}),
    ("bad_voucher", {"voucher": other_voucher(terms=b"\x01" * 32)}),
    ("bad_voucher", {"voucher": other_voucher(epoch=1)}),
    ("bad_voucher", {"voucher": other_voucher(domain=Domain(7, NET.settlement))}),
    ("bad_voucher", {"voucher": other_voucher(domain=Domain(NET.chain_id, contract("elsewhere")))}),
    ("bad_voucher", {"voucher": other_voucher(by=key("thief"))}),
    ("bad_voucher", {"voucher": b"\x00" * 100}),
    ("no_funds", {"channel": channel(locked=Wei(0))}),
    ("chain_down", {"channel": channel(locked=Wei(0)), "chain_error": "No answer."}),
    ("unpaid", {"channel": channel(earned=Wei(10**9), written=Wei(10**9))}),
]


@pytest.mark.parametrize(("code", "changes"), REFUSALS, ids=[f"{i}-{c}" for i, (c, _) in enumerate(REFUSALS)])
def test_every_refusal_has_its_code_and_words(code: str, changes: dict[str, object]) -> None:
    world = World()
    assert refusal(world, **changes).code == code


def test_the_operation_must_be_the_agents() -> None:
    world = World()
    world.offer = known_offer(HOST, terms=TERMS, operations=("embed",))
    assert refusal(world).code == "bad_request"


def test_a_missing_amount_is_said_in_wei() -> None:
    world = World(locked=10)
    # 40 tokens at 2.3 and at least one prompt token at 1.5 wei, rounded up once: 94; 10 are there
    assert "84 wei short" in refusal(world).message


@pytest.mark.parametrize(
    ("account", "words"),
    [
        (None, "chain"),
        (Account(PAYER.address, Wei(999), Wei(10**9)), "free deposit is 1 wei short"),
        (Account(PAYER.address, Wei(10**9), Wei(990)), "10 wei over"),
        (Account(PAYER.address, Wei(10**9), Wei(10**9), int(NOW) + 30), "expired"),
    ],
)
def test_a_lock_must_be_backed(account: Account | None, words: str) -> None:
    world = World(locked=0)
    assert words in refusal(world, lock=world.lock(1000), account=account).message


def test_a_backed_lock_counts_at_once_and_goes_to_the_chain() -> None:
    world = World(locked=0)
    world.account = RICH
    play = world.open(lock=world.lock(1000))
    play.arrive_at_host()
    assert play.session.phase is Phase.STARTING
    assert [effect.lock.value.cumulative for effect in play.effects if isinstance(effect, SubmitLock)] == [1000]
    assert channels.cover(world.channel) == 1000
    world.channel = channels.lose_lock(world.channel)
    assert channels.cover(world.channel) == 0


def test_a_lock_for_another_host_is_refused() -> None:
    world = World(locked=0)
    lock = Lock(key("another").address, TERMS, 0, 1000).sign(NET.settlement_domain, PAYER).pack()
    assert refusal(world, lock=lock, account=RICH).code == "bad_voucher"


@pytest.mark.parametrize(("temperature", "taken"), [(0.0, True), (1e-6, True), (1e-7, False), (1e-310, False)])
def test_a_temperature_that_overflows_the_logits_is_refused(temperature: float, taken: bool) -> None:
    world = World()
    opening = world.open().session.opening
    sampler = msgspec.structs.replace(opening.request.sampler, temperature=temperature)  # type: ignore[union-attr]
    opening = msgspec.structs.replace(opening, request=msgspec.structs.replace(opening.request, sampler=sampler))
    assert isinstance(admit(opening, world.facts()), Admitted if taken else Refuse)


def test_nobody_works_on_the_channel_of_another_signer() -> None:
    """Channels stand on the chain for all to read; only a paper that was never seen before speaks for the signer."""
    world = World()
    world.channel = msgspec.structs.replace(world.channel, redeemed=Wei(50))
    world.account = Account(PAYER.address, Wei(10**13), Wei(10**13))
    strange = world.facts(stranger=True)
    for papers in ({}, {"voucher": world.voucher(50)}, {"lock": world.lock(10)}):
        verdict = admit(world.open(**papers).session.opening, strange)
        assert isinstance(verdict, Refuse)
        assert verdict.code == "bad_voucher"
    for papers in ({"voucher": world.voucher(51)}, {"lock": world.lock(2 * 10**12)}):
        assert isinstance(admit(world.open(**papers).session.opening, strange), Admitted)
    assert isinstance(admit(world.open().session.opening, world.facts()), Admitted)


def test_an_old_lock_and_voucher_are_ignored() -> None:
    world = World()
    world.channel = channel(signed=Wei(50), earned=Wei(50))
    verdict = admit(world.open(voucher=world.voucher(50), lock=world.lock(10)).session.opening, world.facts())
    assert isinstance(verdict, Admitted)
    assert verdict.voucher is None
    assert verdict.lock is None


def test_a_whole_job() -> None:
    world = World(credit=64)
    play = world.open(max_tokens=70)
    play.settle()
    kinds = [type(e.message).__name__ for e in play.effects if isinstance(e, Send)]
    assert kinds[0] == "Accept"
    assert kinds.count("Tokens") == 70
    receipts = [effect.receipt for effect in play.effects if isinstance(effect, SendReceipt)]
    assert [receipt.output_tokens for receipt in receipts] == [32, 64, 70]
    assert [receipt.finish for receipt in receipts] == [Finish.RUNNING, Finish.RUNNING, Finish.LENGTH]
    # ceil((1500 * 3 + 2300 * 70) / 1000)
    assert receipts[-1].amount == 166 == world.channel.earned == world.channel.signed
    assert play.record == Record(70, Wei(166), Finish.LENGTH, "", Wei(166 - 152))


def test_work_stops_at_the_credit_and_goes_on_when_paid() -> None:
    world = World(credit=16)
    play = world.open(max_tokens=60)
    play.arrive_at_host()
    for _ in range(30):
        if play.engine in ("asked", "on"):
            play.work()
    assert play.session.count == 16
    assert play.engine == "paused"
    # a payer pays on receipts, so it was sent one although the chunk is not full
    assert play.effects.count(PauseEngine()) == 1
    assert [e.receipt.output_tokens for e in play.effects if isinstance(e, SendReceipt)] == [16]
    while play.to_payer:
        play.arrive_at_payer()
    play.arrive_at_host()
    assert play.engine == "paused"  # not before the voucher is on disk
    play.write()
    assert ResumeEngine() in play.effects
    assert play.session.count > 16


def test_who_does_not_pay_is_let_go_after_ten_seconds() -> None:
    world = World(credit=8)
    world.honest = False
    play = world.open(max_tokens=60)
    play.arrive_at_host()
    while play.engine in ("asked", "on"):
        play.work()
    world.pass_time(9.9)
    assert play.session.phase is Phase.RUNNING
    world.pass_time(0.2)
    assert play.session.phase is Phase.LINGERING
    assert any(isinstance(e, Send) and isinstance(e.message, Fail) and e.message.code == "unpaid" for e in play.effects)
    assert play.record is not None
    assert play.record.code == "unpaid"
    world.pass_time(10.1)
    assert play.session.phase is Phase.OVER
    assert world.channel.written == world.channel.earned == 23  # 3 * 1.5 + 8 * 2.3 wei, rounded up


def test_vouchers_beyond_what_is_locked_do_not_count() -> None:
    world = World(credit=8, locked=50)
    play = world.open(max_tokens=200)
    play.settle()
    (fail,) = [e.message for e in play.effects if isinstance(e, Send) and isinstance(e.message, Fail)]
    assert fail.code == "no_funds"
    assert world.channel.signed > 50
    # 23 wei is the allowance: the prompt and eight tokens
    assert 50 < world.channel.earned <= 50 + 23
    more = world.open(max_tokens=12)
    more.feed(Opened(world.facts()))
    assert [e.message.code for e in more.effects if isinstance(e, Send)] == ["no_funds"]


def test_a_lower_voucher_changes_nothing() -> None:
    state = channel(signed=Wei(50), earned=Wei(60), written=Wei(10))
    assert channels.sign_for(state, Wei(49)) == state
    assert channels.sign_for(state, Wei(50)) == state


def test_a_bad_voucher_in_the_middle_ends_the_job_with_the_reason() -> None:
    world = World()
    play = world.open()
    play.arrive_at_host()
    play.work()
    play.work()
    play.feed(Paid(other_voucher(by=key("thief"))))
    (fail,) = [e.message for e in play.effects if isinstance(e, Send) and isinstance(e.message, Fail)]
    assert fail.code == "bad_voucher"
    assert StopEngine() in play.effects


def test_a_ledger_that_cannot_write_ends_the_job_and_counts_nothing() -> None:
    world = World()
    play = world.open()
    play.arrive_at_host()
    play.work()
    play.work()
    play.feed(Paid(world.voucher(5)))
    assert any(isinstance(e, PersistVoucher) for e in play.effects)
    play.feed(PersistFailed("The disk is full."))
    (fail,) = [e.message for e in play.effects if isinstance(e, Send) and isinstance(e.message, Fail)]
    assert fail == Fail("storage", "The disk is full.")
    assert world.channel.signed == 0
    play.feed(Persisted(Wei(5)))  # it was written after all
    assert world.channel.signed == 5


def test_cancel_is_answered_with_a_receipt_for_what_was_delivered() -> None:
    world = World()
    play = world.open()
    play.arrive_at_host()
    for _ in range(6):
        play.work()
    play.to_host.append(Cancel())
    play.arrive_at_host()
    play.settle()
    last = [e.receipt for e in play.effects if isinstance(e, SendReceipt)][-1]
    assert (last.finish, last.output_tokens) == (Finish.CANCELLED, 5)
    assert play.state.finish is Finish.CANCELLED
    assert world.channel.signed == last.amount


def test_cancel_before_the_first_token_costs_nothing() -> None:
    world = World()
    play = world.open()
    play.arrive_at_host()
    play.to_host.append(Cancel())
    play.arrive_at_host()
    play.settle()
    assert play.session.phase is Phase.OVER
    assert world.channel.earned == 0


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize(
    ("event", "code"),
    [
        (EngineFailed("engine_crashed", "It died."), "engine_crashed"),
        (Stopped("draining", "This host is shutting down."), "draining"),
    ],
)
def test_what_ends_a_job_early_is_told_as_refuse_or_fail(event, code: str, started: bool) -> None:
    world = World()
    play = world.open()
    play.arrive_at_host()
    if started:
        play.work()
        play.work()
    play.feed(event)
    sent = [e.message for e in play.effects if isinstance(e, Send)][-1]
    assert isinstance(sent, Fail if started else Refuse)
    assert sent.code == code
    assert play.session.phase is (Phase.LINGERING if started else Phase.OVER)


def test_the_payer_vanishing_ends_everything_at_once() -> None:
    world = World()
    play = world.open()
    play.arrive_at_host()
    for _ in range(4):
        play.work()
    play.feed(Gone())
    assert play.session.phase is Phase.OVER
    assert play.record is not None
    assert play.record.code == "payer_gone"
    assert world.channel.running == ()
    assert world.channel.written == world.channel.earned > 0


def test_a_payer_that_pays_and_hangs_up_is_waited_for_until_its_voucher_is_written() -> None:
    world = World()
    play = world.open(max_tokens=10)
    play.arrive_at_host()
    while play.engine in ("asked", "on"):
        play.work()
    while play.to_payer:
        play.arrive_at_payer()
    play.arrive_at_host()
    play.feed(Gone())
    assert play.session.phase is Phase.LINGERING
    # meanwhile the next job of the same payer runs on the channel
    other = world.open(max_tokens=10)
    other.arrive_at_host()
    other.work()
    other.work()
    play.write()
    assert play.session.phase is Phase.OVER
    assert world.channel.written == 0
    other.settle()
    assert world.channel.earned == world.channel.signed


def test_a_resumed_attempt_bills_no_prompt() -> None:
    world = World()
    play = world.open(max_tokens=50, emitted=tuple(range(1000, 1010)))
    play.settle()
    # ceil(2300 * 40 / 1000)
    assert world.channel.earned == 92
    assert play.delivered == list(range(1010, 1050))


def guessed(world: World, proven: Prompt | None = None) -> Refuse | None:
    """A job whose payer says that it has the first token from elsewhere; the refusal, if that is not believed."""
    play = world.open(max_tokens=3, emitted=(1000,))
    play.arrive_at_host(proven=proven)
    play.settle()
    sent = [effect.message for effect in play.effects if isinstance(effect, Send)]
    return next((one for one in sent if isinstance(one, Refuse)), None)


def test_who_guesses_first_tokens_gets_no_more_prompts_than_it_pays_for() -> None:
    """Each job pays 2 tokens of its own and has a prompt read for nothing, until it is said that this is enough."""
    world = World(price_in=10**6, price_out=1_000)  # a prompt of three is worth 3,000 wei, a token 1
    stolen = 0
    while (refused := guessed(world)) is None:
        stolen += 1
    assert refused.code == "unproven"
    cap = 4096 * 1_000 + world.channel.signed // 4
    assert world.channel.lent == stolen * 3_000
    assert cap < world.channel.lent <= cap + 3_000, "and no more than one prompt beyond it"
    whole = world.open(max_tokens=1)
    whole.settle()
    assert whole.session.count == 1, "what begins here is served"
    for _ in range(6):
        world.open(max_tokens=1).settle()
    assert guessed(world) is None, "and paid prompts make room again"


def test_a_prompt_that_is_shown_to_be_billed_elsewhere_counts_for_nothing() -> None:
    world = World(price_in=10**6, price_out=1_000)
    mine, other = Prompt(len(PROMPT), prompt_hash(PROMPT)), Prompt(len(PROMPT), bytes(32))
    while guessed(world) is None:
        pass
    lent = world.channel.lent
    for _ in range(20):
        assert guessed(world, mine) is None, "however many were only claimed before"
    assert world.channel.lent == lent
    refused = guessed(world, other)
    assert refused is not None, "a receipt for another prompt shows nothing"
    assert refused.code == "unproven"


def test_an_early_receipt_comes_with_the_first_token_and_once() -> None:
    for early, due in ((False, [32, 40]), (True, [1, 32, 40])):
        world = World()
        play = world.open(max_tokens=40, early=early)
        play.settle()
        assert [one.output_tokens for one in play.receipts] == due
        assert world.channel.earned == world.channel.signed


def test_embeddings_are_accepted_delivered_and_billed_by_the_prompt() -> None:
    world = World()
    play = world.open(request=embed_request("a", "b"))
    spec = msgspec.structs.replace(play.state.spec, request=embed_request("a", "b"))
    play.state = job.begin_attempt(job.start(spec), world.offer, 0)
    play.arrive_at_host()
    play.feed(EngineRows(2, b"\x00" * 16, (3, 4)))
    kinds = [type(message) for message in play.to_payer]
    assert kinds[0] is Accept
    assert kinds[-1] is Done
    play.engine = "off"
    play.settle()
    assert play.state.finish is Finish.STOP
    assert world.channel.earned == world.channel.signed == 11  # ceil(1.5 * 7)


def test_large_vectors_are_cut_into_frames() -> None:
    world = World()
    width = 1024
    rows = 256
    play = world.open(request=embed_request(*["x"] * rows))
    play.arrive_at_host()
    play.feed(EngineRows(width, b"\x01" * (4 * width * rows), (1,) * rows))
    frames = [message for message in play.to_payer if type(message).__name__ == "Vectors"]
    assert len(frames) == 2
    assert sum(len(frame.data) for frame in frames) == 4 * width * rows
    assert frames[1].first * 4 * width == len(frames[0].data)


def test_an_engine_that_loses_count_is_not_believed() -> None:
    world = World()
    play = world.open()
    play.arrive_at_host()
    play.work()
    play.feed(EngineRun(1, (7,), "x"))
    (fail,) = [e.message for e in play.effects if isinstance(e, Send) and isinstance(e.message, Fail)]
    assert fail.code == "engine_error"


def test_the_text_of_a_run_is_never_split_from_its_tokens() -> None:
    world = World(credit=16)
    play = world.open(max_tokens=60)
    play.arrive_at_host()
    play.work()
    play.work(run=10)
    play.work(run=10)
    tokens = [e.message for e in play.effects if isinstance(e, Send) and isinstance(e.message, Tokens)]
    assert [len(one.ids) for one in tokens] == [10]
    assert play.engine == "paused"


def test_a_run_longer_than_the_credit_is_cut_and_its_text_comes_with_the_last_part() -> None:
    world = World(credit=3)
    play = world.open(max_tokens=7)
    play.arrive_at_host()
    play.work()
    play.work(run=7)
    play.settle()
    tokens = [e.message for e in play.effects if isinstance(e, Send) and isinstance(e.message, Tokens)]
    # with the prompt paid, what it was allowed ahead may go into tokens
    assert [len(one.ids) for one in tokens] == [3, 4]
    assert [bool(one.text) for one in tokens] == [False, True]
    assert play.session.phase is Phase.OVER
    assert world.channel.earned == world.channel.signed
