"""The host's side of one attempt at a job: a pure state machine over one session and the channel that pays for it.

`apply` takes an event and returns the new session, the new channel and effects in the order in which they must happen.
It guarantees: nothing is delivered beyond the channel's headroom, every receipt says exactly what was sent before it,
a voucher counts only once it is durable, and every Open gets an answer.
"""

from typing import assert_never

import msgspec

from lading_node.core import channel as channels
from lading_node.core import commit
from lading_node.core.admission import Facts, admit, check_cover, check_lent
from lading_node.core.attempt import Phase, Session, amount, receipt_of, record_of
from lading_node.core.channel import Channel, ChannelId, Running
from lading_node.core.events import (
    Cancelled,
    Effect,
    EngineFailed,
    EngineFinished,
    EngineRows,
    EngineRun,
    EngineStarted,
    EngineTraced,
    Event,
    Gone,
    Hangup,
    Opened,
    Paid,
    PauseEngine,
    Persisted,
    PersistFailed,
    PersistVoucher,
    ResumeEngine,
    Send,
    StartEngine,
    StopEngine,
    Stopped,
    SubmitLock,
    Woken,
)
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address, TermsId, Wei
from lading_protocol.messages import (
    MAX_FRAME,
    Accept,
    Chance,
    EmbedRequest,
    Fail,
    Open,
    Refuse,
    RichChat,
    Tokens,
    Vectors,
    WeighedTokens,
)
from lading_protocol.pricing import PER, attempt_amount
from lading_protocol.receipts import Finish
from lading_protocol.transcript import (
    CHUNK_TOKENS,
    SKETCH_BYTES,
    merkle_root,
    prompt_hash,
    prompt_mark,
    roll,
    rolling_start,
    vectors_leaf,
)

PAY_SECONDS = 10.0
ROWS_PER_FRAME = MAX_FRAME - 256


class Step(msgspec.Struct, frozen=True):
    session: Session
    channel: Channel
    effects: tuple[Effect, ...] = ()


def channel_id(opening: Open, terms: TermsId) -> ChannelId:
    return ChannelId(Address(opening.signer), terms, opening.epoch)


def apply(session: Session, channel: Channel, event: Event, now: float) -> Step:
    """One event. `now` is Unix seconds. Events that come too late to matter change nothing."""
    match event:
        case Opened(facts):
            return _open(session, facts)
        case Paid(voucher):
            return _paid(session, channel, voucher, now)
        case Persisted(cumulative):
            return _go_on(_written(session), channels.sign_for(channel, cumulative), now)
        case Woken():
            return _go_on(session, channel, now)
        case PersistFailed(reason):
            if session.phase is Phase.LINGERING:
                return _linger(_written(session), channel, (), now)
            return _abort(_written(session), channel, "storage", reason, now)
        case Stopped(code, message):
            return _abort(session, channel, code, message, now)
        case Cancelled():
            return _cancel(session, channel, now)
        case Gone():
            return _gone(session, channel, now)
        case EngineStarted():
            return _started(session, channel, event)
        case EngineTraced(sketch):
            return _traced(session, channel, sketch)
        case EngineRun():
            return _ran(session, channel, event, now)
        case EngineRows():
            return _embedded(session, channel, event, now)
        case EngineFinished(finish):
            return _finished(session, channel, finish, now)
        case EngineFailed(code, message):
            return _engine_failed(session, channel, code, message, now)
        case _:
            assert_never(event)


# The opening


def _open(session: Session, facts: Facts) -> Step:
    if session.phase is not Phase.NEW:
        return Step(session, facts.channel)
    verdict = admit(session.opening, facts)
    session = msgspec.structs.replace(session, facts=facts)
    if isinstance(verdict, Refuse):
        return _refuse(session, facts.channel, verdict)
    opening = session.opening
    effects: list[Effect] = []
    if verdict.voucher is not None:
        effects.append(PersistVoucher(verdict.voucher))
    if verdict.lock is not None:
        effects.append(SubmitLock(verdict.lock))
    ahead = max(1, session.offer.detail.credit)
    effects.append(StartEngine(opening.job, opening.request, opening.emitted, ahead))
    rolling = roll(rolling_start(session.job), opening.emitted)
    session = msgspec.structs.replace(
        session,
        phase=Phase.STARTING,
        persisting=int(verdict.voucher is not None),
        rolling=rolling,
        tree=commit.Commitment(session.job, session.first, rolling if session.first else b""),
    )
    return Step(session, verdict.channel, tuple(effects))


def _refuse(session: Session, channel: Channel, refusal: Refuse, *before: Effect) -> Step:
    session = msgspec.structs.replace(session, phase=Phase.OVER, deadline=None, backlog=())
    return Step(session, channel, (*before, Send(refusal), Hangup()))


def _started(session: Session, channel: Channel, event: EngineStarted) -> Step:
    if session.phase is not Phase.STARTING:
        return Step(session, channel)
    session = msgspec.structs.replace(session, prompt_tokens=event.prompt_tokens, prompt_hash=event.prompt_hash)
    allowance = _allowance(session)
    if refusal := check_cover(channel, channel.signed, allowance):
        return _refuse(session, channel, refusal, StopEngine())
    assert session.facts is not None
    lent = session.first and not _proven(session)
    if lent and (refusal := check_lent(channel, session.offer.price, session.facts.beside)):
        return _refuse(session, channel, refusal, StopEngine())
    session = msgspec.structs.replace(session, phase=Phase.RUNNING)
    channel = channels.begin(channel, Running(session.job, session.opening.attempt, allowance))
    if lent:
        channel = channels.lend(channel, attempt_amount(session.offer.price, session.prompt_tokens, 0, 0))
    return Step(session, channel, (Send(Accept(event.prompt_tokens, event.prompt_hash)),))


def _proven(session: Session) -> bool:
    """Whether the prompt that was read is the one that another host's receipt bills."""
    assert session.facts is not None
    return session.facts.proven == (session.prompt_tokens, session.prompt_hash)


def _allowance(session: Session) -> Wei:
    """How far the job may run ahead of payment: its prompt and `credit` tokens, or less when it cannot be that long."""
    request, credit = session.opening.request, session.offer.detail.credit
    left = 0 if isinstance(request, EmbedRequest) else request.max_tokens - session.first
    return attempt_amount(session.offer.price, session.prompt_tokens, session.first, min(left, max(1, credit)))


# Work


def _traced(session: Session, channel: Channel, sketch: bytes) -> Step:
    if session.phase is not Phase.RUNNING or session.count or session.backlog:
        return Step(session, channel)
    return Step(msgspec.structs.replace(session, sketch=(*session.sketch, sketch)), channel)


def _ran(session: Session, channel: Channel, run: EngineRun, now: float) -> Step:
    if session.phase is not Phase.RUNNING or session.cancelled:
        return Step(session, channel)
    if run.first != session.first + session.count + sum(len(held.ids) for held in session.backlog):
        return _abort(session, channel, "engine_error", "The engine lost count of its tokens.", now)
    if session.sketch and not session.count and not session.backlog:
        session = _bind_prompt(session)
    assert session.tree is not None
    if len(run.sketch) != (SKETCH_BYTES * len(run.ids) if session.tree.is_sketched else 0):
        return _abort(session, channel, "engine_error", "The engine's sketch does not fit its tokens.", now)
    request = session.opening.request
    if len(run.chances) != (len(run.ids) if isinstance(request, RichChat) and request.logprobs else 0):
        return _abort(session, channel, "engine_error", "The engine's logprobs do not fit its tokens.", now)
    return _go_on(msgspec.structs.replace(session, backlog=(*session.backlog, run)), channel, now)


def _bind_prompt(session: Session) -> Session:
    """The first token is there: the sketch of what came before it is whole."""
    prompt = b"".join(session.sketch)
    if len(prompt) != SKETCH_BYTES * (session.prompt_tokens + session.first - 1):
        return msgspec.structs.replace(session, sketch=())
    assert session.tree is not None
    tree = commit.sketched(session.tree, prompt_mark(session.job, prompt))
    return msgspec.structs.replace(session, tree=tree, sketch=(prompt,))


def _go_on(session: Session, channel: Channel, now: float) -> Step:
    """Deliver what is paid ahead for; wait, resume, finish or give up accordingly."""
    if session.phase is Phase.LINGERING:
        return _linger(session, channel, (), now)
    if session.phase is not Phase.RUNNING:
        return Step(session, channel)
    session, channel, effects = _flush(session, channel, now)
    if session.backlog:
        return _wait_for_payment(session, channel, effects, now)
    if session.paused:
        session = msgspec.structs.replace(session, paused=False, deadline=None)
        effects.append(ResumeEngine())
    if session.finished is not None:
        return _done(session, channel, session.finished, effects, now)
    return Step(session, channel, tuple(effects))


def _flush(session: Session, channel: Channel, now: float) -> tuple[Session, Channel, list[Effect]]:
    effects: list[Effect] = []
    while session.backlog:
        run = session.backlog[0]
        affordable = _affordable(session, channel)
        # A run keeps its text, so it is held whole, unless it would not fit even when all is paid.
        if affordable == 0 or affordable < len(run.ids) <= min(CHUNK_TOKENS, max(1, session.offer.detail.credit)):
            break
        taken = min(len(run.ids), affordable)
        ids, rest = run.ids[:taken], run.ids[taken:]
        sketch, more = run.sketch[: SKETCH_BYTES * taken], run.sketch[SKETCH_BYTES * taken :]
        chances, later = run.chances[:taken], run.chances[taken:]
        left = (EngineRun(run.first + taken, rest, run.text, more, later),) if rest else ()
        assert session.tree is not None
        session = msgspec.structs.replace(
            session,
            count=session.count + taken,
            rolling=roll(session.rolling, ids),
            tree=commit.add(session.tree, ids, sketch),
            sketch=(*session.sketch, sketch) if sketch else session.sketch,
            backlog=left + session.backlog[1:],
        )
        channel = channels.earn(channel, session.job, session.opening.attempt, amount(session))
        text = "" if rest else run.text
        effects.append(Send(_tokens(run.first, ids, text, session.rolling, chances)))
        early = session.opening.early and not session.receipted
        if early or session.count // CHUNK_TOKENS > session.receipted // CHUNK_TOKENS:
            session, receipt = receipt_of(session, Finish.RUNNING, now)
            effects.append(receipt)
    return session, channel, effects


def _tokens(first: int, ids: tuple[int, ...], text: str, rolling: bytes, chances: tuple[Chance, ...]) -> Tokens:
    return WeighedTokens(first, ids, text, rolling, chances) if chances else Tokens(first, ids, text, rolling)


def _affordable(session: Session, channel: Channel) -> int:
    """How many more tokens the channel's headroom allows."""
    price = session.offer.price
    # A job may always run up to its own allowance; what it has not used of that is the least it gets.
    room = channels.headroom(channel) + amount(session)
    prompt = session.prompt_tokens if session.first == 0 else 0
    left = room * PER - price.input * prompt
    if left < 0:
        return 0
    if price.output == 0:
        return CHUNK_TOKENS
    return max(0, left // price.output - session.count)


def _wait_for_payment(session: Session, channel: Channel, effects: list[Effect], now: float) -> Step:
    short = channel.signed > channels.cover(channel)
    late = session.deadline is not None and now >= session.deadline and not effects
    if short or late:
        step = _abort(session, channel, *_unpaid_words(channel), now)
        return msgspec.structs.replace(step, effects=(*effects, *step.effects))
    if session.deadline is None or effects or not session.paused:
        session = msgspec.structs.replace(session, deadline=now + PAY_SECONDS)
    if session.receipted < session.count:
        # The payer pays when it sees a receipt, so it gets one before we wait for it.
        session, receipt = receipt_of(session, Finish.RUNNING, now)
        effects.append(receipt)
    if not session.paused:
        session = msgspec.structs.replace(session, paused=True)
        effects.append(PauseEngine())
    return Step(session, channel, tuple(effects))


def _unpaid_words(channel: Channel) -> tuple[str, str]:
    if channel.signed > channels.cover(channel):
        missing = channel.signed - channels.cover(channel)
        return "no_funds", f"The vouchers go {missing} wei over what the channel has locked. Lock more and resume."
    return "unpaid", f"No voucher came for {PAY_SECONDS:g} s; {channels.outstanding(channel)} wei are due."


def _embedded(session: Session, channel: Channel, rows: EngineRows, now: float) -> Step:
    if session.phase is not Phase.STARTING:
        return Step(session, channel)
    if session.cancelled:
        return _refuse(session, channel, Refuse("cancelled", "The payer cancelled."))
    step = _started(session, channel, EngineStarted(sum(rows.tokens), prompt_hash(rows.tokens)))
    session, channel, effects = step.session, step.channel, list(step.effects)
    if session.phase is not Phase.RUNNING:
        return step
    session = msgspec.structs.replace(session, rows=merkle_root([vectors_leaf(session.job, rows.data)]))
    channel = channels.earn(channel, session.job, session.opening.attempt, amount(session))
    row = 4 * rows.width
    part = max(1, ROWS_PER_FRAME // row) * row
    for at in range(0, len(rows.data), part):
        effects.append(Send(Vectors(at // row, rows.width, rows.data[at : at + part])))
    return _done(session, channel, Finish.STOP, effects, now)


# Endings


def _finished(session: Session, channel: Channel, finish: Finish, now: float) -> Step:
    if session.phase is Phase.STARTING:
        return _refuse(session, channel, Refuse("cancelled", "The payer cancelled."))
    if session.phase is not Phase.RUNNING:
        return Step(session, channel)
    if session.cancelled:
        return _done(msgspec.structs.replace(session, backlog=()), channel, Finish.CANCELLED, [], now)
    return _go_on(msgspec.structs.replace(session, finished=finish), channel, now)


def _done(session: Session, channel: Channel, finish: Finish, effects: list[Effect], now: float) -> Step:
    session, receipt = receipt_of(session, finish, now)
    effects += [receipt, record_of(session, channel, finish, "")]
    session = msgspec.structs.replace(session, phase=Phase.LINGERING, deadline=now + PAY_SECONDS, paused=False)
    return _linger(session, channel, tuple(effects), now)


def _abort(session: Session, channel: Channel, code: str, message: str, now: float) -> Step:
    """The job cannot go on here; what was delivered stays due and the payer may resume elsewhere."""
    if session.phase in (Phase.NEW, Phase.STARTING):
        stop = (StopEngine(),) if session.phase is Phase.STARTING else ()
        return _refuse(session, channel, Refuse(code, message), *stop)
    if session.phase is not Phase.RUNNING:
        return Step(session, channel)
    signed: tuple[Effect, ...] = ()
    if session.receipted < session.count:
        # Whoever breaks off signs for what it delivered, so that it can be audited like everything else.
        session, receipt = receipt_of(session, Finish.RUNNING, now)
        signed = (receipt,)
    effects: tuple[Effect, ...] = (
        StopEngine(),
        *signed,
        Send(Fail(code, message)),
        record_of(session, channel, Finish.FAILED, code),
    )
    session = msgspec.structs.replace(
        session, phase=Phase.LINGERING, backlog=(), paused=False, deadline=now + PAY_SECONDS
    )
    return _linger(session, channel, effects, now)


def _linger(session: Session, channel: Channel, effects: tuple[Effect, ...], now: float) -> Step:
    """Wait for the last voucher, unless nothing more is due."""
    if session.persisting:
        return Step(msgspec.structs.replace(session, deadline=None), channel, effects)
    due = channels.outstanding(channel) > channel.written
    if not due or session.gone or (session.deadline is not None and now >= session.deadline):
        return _close(session, channel, effects)
    if session.deadline is None:
        session = msgspec.structs.replace(session, deadline=now + PAY_SECONDS)
    return Step(session, channel, effects)


def _close(session: Session, channel: Channel, effects: tuple[Effect, ...]) -> Step:
    session = msgspec.structs.replace(session, phase=Phase.OVER, deadline=None, backlog=())
    channel = channels.end(channel, session.job, session.opening.attempt)
    return Step(session, channel, (*effects, Hangup()))


def _engine_failed(session: Session, channel: Channel, code: str, message: str, now: float) -> Step:
    if session.phase not in (Phase.STARTING, Phase.RUNNING):
        return Step(session, channel)
    if session.cancelled:
        return _finished(session, channel, Finish.CANCELLED, now)
    step = _abort(session, channel, code, message, now)
    stopped = tuple(effect for effect in step.effects if not isinstance(effect, StopEngine))
    return msgspec.structs.replace(step, effects=stopped)


# The payer


def _paid(session: Session, channel: Channel, packed: bytes, now: float) -> Step:
    if session.phase not in (Phase.STARTING, Phase.RUNNING, Phase.LINGERING):
        return Step(session, channel)
    assert session.facts is not None
    try:
        voucher = channels.read_voucher(packed, channel.id, session.host, session.facts.settlement)
    except LadingError as error:
        if session.phase is Phase.LINGERING:
            return _close(session, channel, ())
        return _abort(session, channel, "bad_voucher", channels.why(error), now)
    if voucher.value.cumulative <= channel.signed:
        return Step(session, channel)
    session = msgspec.structs.replace(session, persisting=session.persisting + 1)
    return Step(session, channel, (PersistVoucher(voucher),))


def _written(session: Session) -> Session:
    return msgspec.structs.replace(session, persisting=max(0, session.persisting - 1))


def _cancel(session: Session, channel: Channel, now: float) -> Step:
    if session.phase not in (Phase.STARTING, Phase.RUNNING) or session.cancelled:
        return Step(session, channel)
    session = msgspec.structs.replace(session, cancelled=True)
    if session.finished is not None:
        return _done(msgspec.structs.replace(session, backlog=()), channel, Finish.CANCELLED, [], now)
    effects: tuple[Effect, ...] = (StopEngine(),)
    if session.paused:
        session = msgspec.structs.replace(session, paused=False, deadline=None, backlog=())
        effects = (StopEngine(), ResumeEngine())
    return Step(session, channel, effects)


def _gone(session: Session, channel: Channel, now: float) -> Step:
    """Nobody listens any more."""
    match session.phase:
        case Phase.NEW:
            return Step(msgspec.structs.replace(session, phase=Phase.OVER), channel, (Hangup(),))
        case Phase.STARTING:
            session = msgspec.structs.replace(session, phase=Phase.OVER)
            return Step(session, channel, (StopEngine(), Hangup()))
        case Phase.RUNNING:
            record = record_of(session, channel, Finish.CANCELLED, "payer_gone")
            session = msgspec.structs.replace(session, phase=Phase.LINGERING, gone=True, backlog=(), paused=False)
            return _linger(session, channel, (StopEngine(), record), now)
        case Phase.LINGERING:
            return _linger(msgspec.structs.replace(session, gone=True), channel, (), now)
        case Phase.OVER:
            return Step(session, channel)
        case _:
            assert_never(session.phase)
