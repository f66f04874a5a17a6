"""A job as its payer sees it: a pure state machine over attempts at one host after another.

Events go in, effects come out; the shell owns links, timers, vouchers and the consumer. It guarantees: only the next
index is accepted, the rolling hash is checked on every frame, nothing is delivered twice, and each host is owed exactly
what it delivered (plus the prompt, once, to the host that delivered the first token).
"""

import codecs
from collections.abc import Sequence
from typing import assert_never

import msgspec

from lading_protocol.eip712 import Domain, Signed, matched, read_field, unpack
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address, Digest, JobId, Signature, Wei
from lading_protocol.messages import (
    Accept,
    CallRequest,
    Chance,
    ChatRequest,
    Chunk,
    Done,
    EmbedRequest,
    Fail,
    Refuse,
    Request,
    RichChat,
    Streamed,
    Tokens,
    ToPayer,
    Vectors,
    WeighedTokens,
    request_hash,
)
from lading_protocol.offers import KnownOffer
from lading_protocol.pricing import attempt_amount, worst_case
from lading_protocol.receipts import TIERS, Finish, Receipt, SignedReceipt
from lading_protocol.transcript import CHUNK_TOKENS, commitment, merkle_root, roll, rolling_start, vectors_leaf
from lading_protocol.work import text_bytes

CLOCK_SKEW = 120.0
LIED = "host_lied"
MOST_JOINED = 64
BARE = 32 * len(Receipt.__struct_fields__)


class JobSpec(msgspec.Struct, frozen=True):
    """What stays the same over all attempts."""

    job: JobId
    request: Request
    signer: Address


class Attempt(msgspec.Struct, frozen=True):
    """One host's part so far. `first` is the absolute index of its first output token, `marks` are those of the chunks
    that `receipt` covers (transcript.commitment). Where it is `bare`, the last one may come unsigned."""

    number: int
    offer: KnownOffer
    epoch: int
    first: int
    accepted: Accept | None = None
    count: int = 0
    receipt: SignedReceipt | None = None
    marks: tuple[bytes, ...] = ()
    bare: bool = False


class JobState(msgspec.Struct, frozen=True):
    """A job between events. `attempt` is None while no host works on it; `last` is what the one before had come to.

    `spelled` is the beginning of a character of a call's answer whose other bytes are still to come.
    """

    spec: JobSpec
    emitted: tuple[int, ...] = ()
    rolling: Digest = Digest(bytes(32))
    vectors: bytes = b""
    spelled: bytes = b""
    attempt: Attempt | None = None
    last: Attempt | None = None
    prompt_tokens: int = 0
    prompt_hash: bytes = b""
    attempts: int = 0
    finish: Finish = Finish.RUNNING


# Events: every ToPayer message, and what the shell sees itself.


class LinkLost(msgspec.Struct, frozen=True):
    """The stream broke, or the host stalled past its limit."""

    reason: str


class Joined(msgspec.Struct):
    """Token messages that came together: each is checked like one that came alone."""

    frames: list[Tokens]


Heard = ToPayer | Joined
Event = Heard | LinkLost


class Deliver(msgspec.Struct, frozen=True):
    """Hand these to the consumer; they will never be handed out again."""

    first: int
    ids: tuple[int, ...]
    text: str
    chances: tuple[Chance, ...] = ()


class DeliverRows(msgspec.Struct, frozen=True):
    """Rows of an embedding, float32 little endian."""

    width: int
    data: bytes


class Owe(msgspec.Struct, frozen=True):
    """The running attempt's amount is now `amount` wei in all; vouchers may cover it."""

    amount: Wei


class Resume(msgspec.Struct, frozen=True):
    """The attempt is over without an answer; try another host. `blame` says whether the host broke the protocol."""

    code: str
    reason: str
    blame: bool


class Finished(msgspec.Struct, frozen=True):
    finish: Finish
    receipt: SignedReceipt


Effect = Deliver | DeliverRows | Owe | Resume | Finished


def _lie(reason: str) -> LadingError:
    """The host contradicts itself or the protocol."""
    return LadingError(reason, code=LIED)


def start(spec: JobSpec, emitted: tuple[int, ...] = ()) -> JobState:
    """`emitted` are tokens that this consumer has from another payer's attempts: none of them is delivered or paid
    again. Raises BadMessage where a call's are no work tokens."""
    spelled = b""
    if emitted and not isinstance(spec.request, ChatRequest):
        _, spelled = _text_of(b"", emitted)
    return JobState(spec, emitted, roll(rolling_start(spec.job), emitted), spelled=spelled)


def begin_attempt(state: JobState, offer: KnownOffer, epoch: int, *, bare: bool = False) -> JobState:
    """The shell has chosen a host. Raises ValueError while another attempt runs or after the end."""
    if state.attempt is not None or state.finish is not Finish.RUNNING:
        raise ValueError("the job already runs or has ended")
    attempt = Attempt(state.attempts, offer, epoch, len(state.emitted), bare=bare)
    return msgspec.structs.replace(state, attempt=attempt, attempts=state.attempts + 1, vectors=b"")


def joined(messages: list[Heard]) -> list[Heard]:
    """The same said in fewer events: token messages in a row are one.

    A receipt that a final one over the same tokens follows is not needed: what it would prove, the later one proves.
    """
    found: list[Heard] = []
    frames: list[Tokens] = []
    for message in messages:
        if type(message) is Tokens and len(frames) < MOST_JOINED:
            frames.append(message)
            continue
        if frames:
            found.append(Joined(frames) if len(frames) > 1 else frames[0])
            frames = []
        if type(message) is Tokens:
            frames.append(message)
        elif type(message) is Done and found and type(before := found[-1]) is Chunk and not message.marks:
            found[-1] = Done(message.receipt, before.marks)
        else:
            found.append(message)
    if frames:
        found.append(Joined(frames) if len(frames) > 1 else frames[0])
    return found


def owed(state: JobState) -> Wei:
    """What the payer owes the running attempt so far, or the last one when none runs. Vectors are owed once all of them
    are there and signed for."""
    if isinstance(state.spec.request, EmbedRequest) and state.finish is Finish.RUNNING:
        return Wei(0)
    return _price(state)


def _price(state: JobState) -> Wei:
    """What a receipt over the running attempt must say."""
    attempt = state.attempt or state.last
    if attempt is None or attempt.accepted is None:
        return Wei(0)
    delivered = attempt.count > 0 or bool(state.vectors)
    prompt = attempt.accepted.prompt_tokens if delivered else 0
    return attempt_amount(attempt.offer.price, prompt, attempt.first, attempt.count)


def apply(state: JobState, event: Event, domain: Domain, now: float) -> tuple[JobState, list[Effect]]:
    """One event at `now` (Unix seconds). `domain` is the audit court's, under which receipts are signed.

    A lie of the host becomes a Resume.
    """
    if state.attempt is None:
        return state, []
    try:
        match event:
            case Accept():
                return _accept(state, event)
            case Tokens():
                return _tokens(state, (event,))
            case Joined(frames):
                return _tokens(state, frames)
            case Vectors():
                return _vectors(state, event)
            case Chunk():
                if not _unsigned(_running(state)):  # a host that says this for ever would never be found silent
                    raise _lie("The host signed anew, and delivered nothing since it last did.")
                state = _marked(state, event.marks)
                return _with_receipt(state, _receipt(state, event.receipt, domain, now)), []
            case Done():
                state = _marked(state, event.marks)
                return _done(state, _receipt(state, event.receipt, domain, now))
            case Refuse():
                return _over(state, event.code, event.message, blame=False)
            case Fail():
                # A host that gives up in words has the time to sign; one that does not wants to escape the audit.
                return _over(state, event.code, event.message, blame=_unsigned(_running(state)))
            case LinkLost():
                return _over(state, "link_lost", event.reason, blame=False)
            case _:
                assert_never(event)
    except LadingError as lie:
        return _over(state, lie.code, lie.message, blame=True)


def _over(state: JobState, code: str, reason: str, *, blame: bool) -> tuple[JobState, list[Effect]]:
    return msgspec.structs.replace(state, attempt=None, last=state.attempt), [Resume(code, reason, blame)]


def _unsigned(attempt: Attempt) -> bool:
    signed = attempt.receipt.value.output_tokens if attempt.receipt is not None else 0
    return attempt.count > signed


def _running(state: JobState) -> Attempt:
    assert state.attempt is not None
    return state.attempt


def _accept(state: JobState, event: Accept) -> tuple[JobState, list[Effect]]:
    attempt = _running(state)
    if attempt.accepted is not None:
        raise _lie("The host accepted twice.")
    most, _ = worst_case(state.spec.request, attempt.offer.detail.context)
    if event.prompt_tokens > most:
        raise _lie(f"The host counts {event.prompt_tokens} prompt tokens where there can be {most} at most.")
    known = state.emitted and state.prompt_hash
    if known and (event.prompt_tokens, event.prompt_hash) != (state.prompt_tokens, state.prompt_hash):
        # One of the two is wrong, and which one nobody here knows: to blame the second would let a first host that lies
        # have all honest ones shunned.
        return _over(state, "prompt_differs", "It reads another prompt than the host before it.", blame=False)
    replaced = msgspec.structs.replace(attempt, accepted=event)
    if known:
        return msgspec.structs.replace(state, attempt=replaced), []
    return (
        msgspec.structs.replace(
            state, attempt=replaced, prompt_tokens=event.prompt_tokens, prompt_hash=event.prompt_hash
        ),
        [],
    )


def _tokens(state: JobState, frames: Sequence[Tokens]) -> tuple[JobState, list[Effect]]:
    """What is right of some frames in a row is delivered and owed, also where the next one is a lie."""
    request, due = state.spec.request, len(state.emitted)
    if _running(state).accepted is None or isinstance(request, EmbedRequest):
        raise _lie("The host sent tokens that nobody asked for.")
    ids: list[int] = []
    texts: list[str] = []
    chances: list[Chance] = []
    plain = type(request) is ChatRequest
    rolling, lie = state.rolling, None
    for frame in frames:
        if frame.first != due:
            lie = f"The host sent index {frame.first}, the next one is {due}."
        elif (due := due + len(frame.ids)) > request.max_tokens:
            lie = f"The host sent more than the {request.max_tokens} tokens asked for."
        elif (rolling := roll(rolling, frame.ids)) != frame.rolling:
            lie = "The rolling hash does not match the tokens."
        elif not plain or type(frame) is not Tokens:
            lie = _odd(request, frame)
        if lie is not None:
            break
        texts.append(frame.text)
        ids += frame.ids
        if type(frame) is WeighedTokens:
            chances += frame.chances
    effects: list[Effect] = []
    if ids:
        state, deliver = _delivered(state, tuple(ids), "".join(texts), Digest(frames[len(texts) - 1].rolling))
        effects = [msgspec.structs.replace(deliver, chances=tuple(chances)) if chances else deliver, Owe(owed(state))]
    if lie is not None:
        state, last = _over(state, LIED, lie, blame=True)
        effects += last
    return state, effects


def _odd(request: Streamed, frame: Tokens) -> str | None:
    """What is wrong with a frame that is not of the plainest kind."""
    told = len(frame.chances) if isinstance(frame, WeighedTokens) else 0
    if told != (len(frame.ids) if isinstance(request, RichChat) and request.logprobs else 0):
        return f"The host told {told} logprobs with {len(frame.ids)} tokens."
    if isinstance(request, CallRequest):
        try:
            text_bytes(frame.ids)
        except LadingError as error:
            return error.message
    return None


def _delivered(state: JobState, ids: tuple[int, ...], text: str, rolling: Digest) -> tuple[JobState, Deliver]:
    attempt, first, rest = _running(state), len(state.emitted), b""
    if not isinstance(state.spec.request, ChatRequest):
        text, rest = _spell(state.spelled, ids)
    state = msgspec.structs.replace(
        state,
        emitted=state.emitted + ids,
        rolling=rolling,
        spelled=rest,
        attempt=msgspec.structs.replace(attempt, count=attempt.count + len(ids)),
    )
    return state, Deliver(first, ids, text)


def _spell(before: bytes, ids: tuple[int, ...]) -> tuple[str, bytes]:
    """The text of work tokens, whatever the host says it is, and the bytes of a character that is not whole yet."""
    try:
        return _text_of(before, ids)
    except LadingError as error:
        raise _lie(error.message) from error


def _text_of(before: bytes, ids: tuple[int, ...]) -> tuple[str, bytes]:
    data = before + text_bytes(ids)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data)
    return text, decoder.getstate()[0]


def _vectors(state: JobState, event: Vectors) -> tuple[JobState, list[Effect]]:
    attempt, request = _running(state), state.spec.request
    if attempt.accepted is None or not isinstance(request, EmbedRequest):
        raise _lie("The host sent vectors that nobody asked for.")
    row = 4 * event.width
    if len(event.data) % row or event.first * row != len(state.vectors):
        raise _lie("The host's vectors have a hole or a ragged end.")
    state = msgspec.structs.replace(state, vectors=state.vectors + event.data)
    if len(state.vectors) > row * len(request.inputs):
        raise _lie("The host sent more vectors than inputs.")
    return state, []


def _marked(state: JobState, added: bytes) -> JobState:
    """The marks of all chunks so far, of which `added` is what the last receipt did not have (messages.Chunk)."""
    attempt = _running(state)
    signed = attempt.receipt.value.output_tokens if attempt.receipt is not None else 0
    kept = attempt.marks[: 1 + signed // CHUNK_TOKENS] if signed else ()
    marks = (*kept, *(added[at : at + 32] for at in range(0, len(added), 32)))
    due = 1 + -(-attempt.count // CHUNK_TOKENS) if attempt.count else 0
    if len(added) % 32 or (marks and len(marks) != due):
        raise _lie(f"The host sent {len(added)} bytes of marks for a receipt over {attempt.count} tokens.")
    return msgspec.structs.replace(state, attempt=msgspec.structs.replace(attempt, marks=marks))


def _receipt(state: JobState, packed: bytes, domain: Domain, now: float) -> SignedReceipt:
    """Check a receipt against everything this side knows. A bare one has no signature yet: the shell waits for it."""
    attempt, spec, offer = _running(state), state.spec, _running(state).offer.offer
    if attempt.accepted is None:
        raise _lie("The host signed for an attempt that it never accepted.")
    issued_at = read_field(Receipt, packed, "issued_at")
    expected = Receipt(
        job=spec.job,
        attempt=attempt.number,
        request=request_hash(spec.request),
        agent=offer.agent,
        terms=offer.terms,
        host=offer.host,
        signer=spec.signer,
        epoch=attempt.epoch,
        first=attempt.first,
        prompt_tokens=attempt.accepted.prompt_tokens,
        output_tokens=attempt.count,
        prompt_hash=attempt.accepted.prompt_hash,
        commitment=_commitment(state),
        price_in=offer.price_in,
        price_out=offer.price_out,
        amount=_price(state),
        finish=read_field(Receipt, packed, "finish"),
        issued_at=issued_at,
        tier=TIERS.index(attempt.offer.detail.tier),
    )
    if abs(issued_at - now) > CLOCK_SKEW:
        # A receipt from long ago could no longer be disputed, one from the future not yet.
        raise _lie(f"The receipt is dated {issued_at - now:+.0f} s from now.")
    if attempt.bare and expected.finish != Finish.RUNNING and packed == expected.words():
        return Signed(expected, Signature(b""))
    signed = matched(expected, packed, domain, offer.host)
    if signed is None:
        receipt = Receipt.from_words(packed) if len(packed) == BARE else unpack(Receipt, packed).value
        wrong = [f for f in Receipt.__struct_fields__ if getattr(receipt, f) != getattr(expected, f)]
        raise _lie(f"The receipt is wrong in: {', '.join(wrong)}.")
    return signed


def _commitment(state: JobState) -> Digest:
    attempt = _running(state)
    if not isinstance(state.spec.request, EmbedRequest):
        return commitment(state.spec.job, state.emitted, attempt.first, attempt.marks)
    return merkle_root([vectors_leaf(state.spec.job, state.vectors)] if state.vectors else [])


def _with_receipt(state: JobState, receipt: SignedReceipt) -> JobState:
    return msgspec.structs.replace(state, attempt=msgspec.structs.replace(_running(state), receipt=receipt))


def _done(state: JobState, receipt: SignedReceipt) -> tuple[JobState, list[Effect]]:
    finish = receipt.value.finish
    if finish not in (Finish.STOP, Finish.LENGTH, Finish.CANCELLED):
        raise _lie(f"The host called the job done with finish {finish}.")
    effects: list[Effect] = []
    request, vectors = state.spec.request, state.vectors
    state = msgspec.structs.replace(_with_receipt(state, receipt), finish=Finish(finish))
    if isinstance(request, EmbedRequest):
        width, ragged = divmod(len(vectors), 4 * len(request.inputs))
        if not width or ragged:
            raise _lie("The host called the job done without a vector for each input.")
        effects += [DeliverRows(width, vectors), Owe(owed(state))]
    return state, [*effects, Finished(Finish(finish), receipt)]
