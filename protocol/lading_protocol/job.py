"""A job as its payer sees it: a state machine over attempts at one host after another.

Events go in, effects come out; the shell owns links, timers, vouchers and the consumer. It guarantees: only the next
index is accepted, the rolling hash is checked on every frame, nothing is delivered twice, and each host is owed exactly
what it delivered (plus the prompt, once, to the host that delivered the first token).
"""

import codecs
from collections.abc import Sequence
from struct import Struct
from typing import Final, assert_never

import msgspec

from lading_protocol.eip712 import Domain, check_packed
from lading_protocol.errors import LadingError
from lading_protocol.ids import MAX_U96, Address, Digest, JobId, Wei
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
from lading_protocol.receipts import TIERS, Finish, Receipt
from lading_protocol.transcript import CHUNK_TOKENS, commitment, merkle_root, roll, rolling_start, vectors_leaf
from lading_protocol.work import text_bytes

CLOCK_SKEW: Final = 120.0
LIED: Final = "host_lied"
MOST_JOINED: Final = 64
BARE: Final = 32 * len(Receipt.__struct_fields__)
_RUNNING: Final = Finish.RUNNING
_ENDS: Final = {int(end): end for end in (Finish.STOP, Finish.LENGTH, Finish.CANCELLED)}
# The two words of a receipt that its host alone knows stand side by side.
_TOLD_AT: Final = 32 * Receipt.__struct_fields__.index("finish")
_PAD: Final = bytes(12)
_told: Final = Struct(">31xB24xQ").unpack_from


class JobSpec(msgspec.Struct, frozen=True):
    """What stays the same over all attempts."""

    job: JobId
    request: Request
    signer: Address


class Attempt:
    """One host's part so far. `first` is the absolute index of its first output token, `receipt` the last one that it
    sent, packed, over `signed` tokens, `marks` are those of the chunks that this covers (transcript.commitment), `owed`
    is what the payer owes for it. Where it is `bare`, the last receipt may come unsigned."""

    __slots__ = (
        "accepted",
        "bare",
        "count",
        "epoch",
        "first",
        "marks",
        "most_prompt",
        "number",
        "offer",
        "owed",
        "price",
        "receipt",
        "signed",
    )

    def __init__(self, request: Request, number: int, offer: KnownOffer, epoch: int, first: int, *, bare: bool) -> None:
        self.number = number
        self.offer = offer
        self.epoch = epoch
        self.first = first
        self.bare = bare
        self.price = offer.price
        self.most_prompt, _ = worst_case(request, offer.detail.context)
        self.accepted: Accept | None = None
        self.count = 0
        self.owed = Wei(0)
        self.receipt = b""
        self.signed = 0
        self.marks: tuple[bytes, ...] = ()

    def sign(self, receipt: bytes, marks: tuple[bytes, ...]) -> None:
        """The host has, for all that it delivered so far."""
        self.receipt, self.marks, self.signed = receipt, marks, self.count


class JobState:
    """A job between events, for `apply` to change. `attempt` is None while no host works on it; `last` is what the one
    before had come to.

    `spelled` is the beginning of a character of a call's answer whose other bytes are still to come.
    """

    __slots__ = (
        "asked",
        "attempt",
        "attempts",
        "emitted",
        "finish",
        "last",
        "prompt_hash",
        "prompt_tokens",
        "rolling",
        "spec",
        "spelled",
        "streamed",
        "vectors",
    )

    def __init__(self, spec: JobSpec, emitted: Sequence[int], rolling: Digest, spelled: bytes) -> None:
        self.spec = spec
        self.streamed = None if isinstance(spec.request, EmbedRequest) else spec.request
        self.emitted = list(emitted)
        self.rolling = rolling
        self.spelled = spelled
        self.vectors = b""
        self.asked = b""  # the request's hash, once a receipt had to say it
        self.attempt: Attempt | None = None
        self.last: Attempt | None = None
        self.prompt_tokens = 0
        self.prompt_hash = b""
        self.attempts = 0
        self.finish = _RUNNING

    @property
    def runs(self) -> bool:
        """Whether a host works on it."""
        return self.attempt is not None and self.finish is _RUNNING

    def end(self, finish: Finish) -> None:
        """The shell knows how the job ended."""
        self.attempt, self.finish = None, finish


# Events: every ToPayer message, and what the shell sees itself.


class LinkLost(msgspec.Struct, frozen=True):
    """The stream broke, or the host stalled past its limit."""

    reason: str


class Joined(msgspec.Struct, gc=False):
    """Token messages that came together: each is checked like one that came alone."""

    frames: list[Tokens]


Heard = ToPayer | Joined
Event = Heard | LinkLost


class Deliver(msgspec.Struct, frozen=True, gc=False):
    """Hand these to the consumer; they will never be handed out again."""

    first: int
    ids: tuple[int, ...]
    text: str
    chances: tuple[Chance, ...] = ()


class DeliverRows(msgspec.Struct, frozen=True):
    """Rows of an embedding, float32 little endian."""

    width: int
    data: bytes


class Resume(msgspec.Struct, frozen=True):
    """The attempt is over without an answer; try another host. `blame` says whether the host broke the protocol."""

    code: str
    reason: str
    blame: bool


class Finished(msgspec.Struct, frozen=True, gc=False):
    """`receipt` is packed."""

    finish: Finish
    receipt: bytes


Effect = Deliver | DeliverRows | Resume | Finished


def _lie(reason: str) -> LadingError:
    """The host contradicts itself or the protocol."""
    return LadingError(reason, code=LIED)


def start(spec: JobSpec, emitted: Sequence[int] = ()) -> JobState:
    """`emitted` are tokens that this consumer has from another payer's attempts: none of them is delivered or paid
    again. Raises BadMessage where a call's are no work tokens."""
    spelled = b""
    if emitted and not isinstance(spec.request, ChatRequest):
        _, spelled = _text_of(b"", emitted)
    return JobState(spec, emitted, roll(rolling_start(spec.job), emitted), spelled)


def begin_attempt(
    state: JobState, offer: KnownOffer, epoch: int, number: int | None = None, *, bare: bool = False
) -> JobState:
    """The shell has chosen a host: the job as this attempt will see it, which it shares with no other that races it.

    `number` is how many attempts came before. Raises ValueError after the end."""
    if state.finish is not _RUNNING:
        raise ValueError("the job has ended")
    mine = JobState(state.spec, state.emitted, state.rolling, state.spelled)
    mine.asked, mine.last = state.asked, state.last
    mine.prompt_tokens, mine.prompt_hash = state.prompt_tokens, state.prompt_hash
    before = state.attempts if number is None else number
    mine.attempts = before + 1
    mine.attempt = Attempt(state.spec.request, before, offer, epoch, len(state.emitted), bare=bare)
    return mine


def joined(messages: list[Heard]) -> list[Heard]:
    """The same said in fewer events: token messages in a row are one.

    A receipt that a final one over the same tokens follows is not needed: what it would prove, the later one proves.
    """
    found: list[Heard] = []
    frames: list[Tokens] = []
    plain = Tokens
    for message in messages:
        if type(message) is plain:
            if len(frames) == MOST_JOINED:
                found.append(Joined(frames))
                frames = []
            frames.append(message)
            continue
        if frames:
            found.append(Joined(frames) if len(frames) > 1 else frames[0])
            frames = []
        if type(message) is Done and found and type(before := found[-1]) is Chunk and not message.marks:
            found[-1] = Done(message.receipt, before.marks)
        else:
            found.append(message)
    if frames:
        found.append(Joined(frames) if len(frames) > 1 else frames[0])
    return found


def owed(state: JobState) -> Wei:
    """What the payer owes the running attempt so far, or the last one when none runs. Vectors are owed once all of them
    are there and signed for."""
    attempt = state.attempt or state.last
    return Wei(0) if attempt is None else attempt.owed


def _price(state: JobState, attempt: Attempt) -> Wei:
    """What a receipt over the attempt must say."""
    accepted = attempt.accepted
    if accepted is None or not (attempt.count or state.vectors):
        return Wei(0)
    return attempt_amount(attempt.price, accepted.prompt_tokens, attempt.first, attempt.count)


def apply(state: JobState, event: Event, domain: Domain, now: float) -> list[Effect]:
    """One event at `now` (Unix seconds). `domain` is the audit court's, under which receipts are signed.

    A lie of the host becomes a Resume, and nothing that it says counts.
    """
    attempt = state.attempt
    if attempt is None:
        return []
    try:
        match event:  # the most frequent first
            case Joined(frames):
                return _tokens(state, attempt, frames)
            case Tokens():
                return _tokens(state, attempt, [event])
            case Done():
                return _done(state, attempt, event, domain, now)
            case Accept():
                return _accept(state, attempt, event)
            case Vectors():
                return _vectors(state, attempt, event)
            case Chunk():
                return _chunk(state, attempt, event, domain, now)
            case Refuse():
                return _over(state, event.code, event.message, blame=False)
            case Fail():
                # A host that gives up in words has the time to sign; one that does not wants to escape the audit.
                return _over(state, event.code, event.message, blame=attempt.count > attempt.signed)
            case LinkLost():
                return _over(state, "link_lost", event.reason, blame=False)
            case _:
                assert_never(event)
    except LadingError as lie:
        return _over(state, lie.code, lie.message, blame=True)


def _over(state: JobState, code: str, reason: str, *, blame: bool) -> list[Effect]:
    state.attempt, state.last = None, state.attempt
    return [Resume(code, reason, blame)]


def _accept(state: JobState, attempt: Attempt, event: Accept) -> list[Effect]:
    prompt_tokens, prompt_hash = event.prompt_tokens, event.prompt_hash
    if attempt.accepted is not None:
        raise _lie("The host accepted twice.")
    if prompt_tokens > attempt.most_prompt:
        raise _lie(f"The host counts {prompt_tokens} prompt tokens where there can be {attempt.most_prompt} at most.")
    if not state.emitted or not state.prompt_hash:
        state.prompt_tokens, state.prompt_hash = prompt_tokens, prompt_hash
    elif (prompt_tokens, prompt_hash) != (state.prompt_tokens, state.prompt_hash):
        # One of the two is wrong, and which one nobody here knows: to blame the second would let a first host that lies
        # have all honest ones shunned.
        return _over(state, "prompt_differs", "It reads another prompt than the host before it.", blame=False)
    attempt.accepted = event
    return []


def _tokens(state: JobState, attempt: Attempt, frames: Sequence[Tokens]) -> list[Effect]:
    """What is right of some frames in a row is delivered and owed, also where the next one is a lie."""
    request = state.streamed
    if attempt.accepted is None or request is None:
        raise _lie("The host sent tokens that nobody asked for.")
    plain, first, due = type(request) is ChatRequest, len(state.emitted), len(state.emitted)
    usual = Tokens
    most, rolling, lie = request.max_tokens, state.rolling, ""
    ids: list[int] = []
    texts: list[str] = []
    chances: list[Chance] = []
    for frame in frames:
        added = frame.ids
        if frame.first != due:
            lie = f"The host sent index {frame.first}, the next one is {due}."
        elif (due := due + len(added)) > most:
            lie = f"The host sent more than the {most} tokens asked for."
        elif (rolled := roll(rolling, added)) != frame.rolling:
            lie = "The rolling hash does not match the tokens."
        elif not plain or type(frame) is not usual:
            lie = _odd(request, frame)
        if lie:
            break
        rolling = rolled
        ids.extend(added)
        texts.append(frame.text)
        if not plain and type(frame) is WeighedTokens:
            chances.extend(frame.chances)
    effects: list[Effect] = []
    if ids:
        text = "".join(texts) if plain or isinstance(request, ChatRequest) else _spell(state, ids)
        state.emitted += ids
        state.rolling = rolling
        attempt.count += len(ids)
        attempt.owed = _price(state, attempt)
        effects.append(Deliver(first, tuple(ids), text, tuple(chances)))
    return effects + _over(state, LIED, lie, blame=True) if lie else effects


def _odd(request: Streamed, frame: Tokens) -> str:
    """What is wrong with a frame that is not of the plainest kind; "" for nothing."""
    told = len(frame.chances) if isinstance(frame, WeighedTokens) else 0
    if told != (len(frame.ids) if isinstance(request, RichChat) and request.logprobs else 0):
        return f"The host told {told} logprobs with {len(frame.ids)} tokens."
    if isinstance(request, CallRequest):
        try:
            text_bytes(frame.ids)
        except LadingError as error:
            return error.message
    return ""


def _spell(state: JobState, ids: Sequence[int]) -> str:
    """The text of work tokens, whatever the host says it is."""
    try:
        text, state.spelled = _text_of(state.spelled, ids)
    except LadingError as error:
        raise _lie(error.message) from error
    return text


def _text_of(before: bytes, ids: Sequence[int]) -> tuple[str, bytes]:
    """And the bytes of a character that is not whole yet."""
    data = before + text_bytes(ids)
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data)
    return text, decoder.getstate()[0]


def _vectors(state: JobState, attempt: Attempt, event: Vectors) -> list[Effect]:
    request = state.spec.request
    if attempt.accepted is None or not isinstance(request, EmbedRequest):
        raise _lie("The host sent vectors that nobody asked for.")
    row = 4 * event.width
    if len(event.data) % row or event.first * row != len(state.vectors):
        raise _lie("The host's vectors have a hole or a ragged end.")
    if len(state.vectors) + len(event.data) > row * len(request.inputs):
        raise _lie("The host sent more vectors than inputs.")
    state.vectors += event.data
    return []


def _chunk(state: JobState, attempt: Attempt, event: Chunk, domain: Domain, now: float) -> list[Effect]:
    if attempt.count <= attempt.signed:  # a host that says this for ever would never be found silent
        raise _lie("The host signed anew, and delivered nothing since it last did.")
    marks = _marks(attempt, event.marks)
    _check(state, attempt, event.receipt, marks, domain, now)
    attempt.sign(event.receipt, marks)
    return []


def _done(state: JobState, attempt: Attempt, event: Done, domain: Domain, now: float) -> list[Effect]:
    marks = _marks(attempt, event.marks)
    said = _check(state, attempt, event.receipt, marks, domain, now)
    finish = _ENDS.get(said)
    if finish is None:
        raise _lie(f"The host called the job done with finish {said}.")
    effects: list[Effect] = []
    request, vectors = state.spec.request, state.vectors
    if state.streamed is None and isinstance(request, EmbedRequest):
        width, ragged = divmod(len(vectors), 4 * len(request.inputs))
        if not width or ragged:
            raise _lie("The host called the job done without a vector for each input.")
        effects.append(DeliverRows(width, vectors))
        attempt.owed = _price(state, attempt)
    attempt.sign(event.receipt, marks)
    state.finish = finish
    effects.append(Finished(finish, event.receipt))
    return effects


def _marks(attempt: Attempt, added: bytes) -> tuple[bytes, ...]:
    """Those of all chunks so far, of which `added` is what the last receipt did not have (messages.Chunk)."""
    if not added and not attempt.marks:
        return ()
    kept = attempt.marks[: 1 + attempt.signed // CHUNK_TOKENS] if attempt.signed else ()
    marks = (*kept, *[added[at : at + 32] for at in range(0, len(added), 32)])
    due = 1 + -(-attempt.count // CHUNK_TOKENS) if attempt.count else 0
    if len(added) % 32 or (marks and len(marks) != due):
        raise _lie(f"The host sent {len(added)} bytes of marks for a receipt over {attempt.count} tokens.")
    return marks


def _check(
    state: JobState, attempt: Attempt, packed: bytes, marks: tuple[bytes, ...], domain: Domain, now: float
) -> int:
    """Holds a receipt against everything this side knows, and returns the finish that it names. A bare one has no
    signature yet: the shell waits for it."""
    if attempt.accepted is None:
        raise _lie("The host signed for an attempt that it never accepted.")
    if len(packed) < BARE:
        raise _lie(f"A receipt is cut short ({len(packed)} bytes).")
    finish: int
    finish, issued_at = _told(packed, _TOLD_AT)
    if abs(issued_at - now) > CLOCK_SKEW:
        # A receipt from long ago could no longer be disputed, one from the future not yet.
        raise _lie(f"The receipt is dated {issued_at - now:+.0f} s from now.")
    words = _words(state, attempt, _commitment(state, attempt, marks), finish, issued_at)
    if not packed.startswith(words):
        fields = enumerate(Receipt.__struct_fields__)
        wrong = [name for at, name in fields if packed[32 * at : 32 * at + 32] != words[32 * at : 32 * at + 32]]
        raise _lie(f"The receipt is wrong in: {', '.join(wrong)}.")
    if len(packed) > BARE or not attempt.bare or finish == _RUNNING:
        check_packed(Receipt, packed, domain, attempt.offer.host)
    return finish


def _words(state: JobState, attempt: Attempt, root: Digest, finish: int, issued_at: int) -> bytes:
    """What the host has to say of its attempt: Receipt.words, field by field, without the Receipt."""
    accepted, spec, offer, amount = attempt.accepted, state.spec, attempt.offer.offer, _price(state, attempt)
    assert accepted is not None
    if amount > MAX_U96:
        raise _lie("The host's price is more than a receipt can say.")
    if not state.asked:
        state.asked = request_hash(spec.request)
    return b"".join(
        (
            spec.job,
            _word(attempt.number),
            state.asked,
            offer.agent,
            offer.terms,
            _PAD + offer.host,
            _PAD + spec.signer,
            _word(attempt.epoch),
            _word(attempt.first),
            _word(accepted.prompt_tokens),
            _word(attempt.count),
            accepted.prompt_hash,
            root,
            _word(attempt.price.input),
            _word(attempt.price.output),
            _word(amount),
            _word(finish),
            _word(issued_at),
            _word(TIERS.index(attempt.offer.detail.tier)),
        )
    )


def _word(number: int) -> bytes:
    return number.to_bytes(32, "big")


def _commitment(state: JobState, attempt: Attempt, marks: tuple[bytes, ...]) -> Digest:
    job = state.spec.job
    if state.streamed is not None:
        return commitment(job, state.emitted, attempt.first, marks)
    return merkle_root([vectors_leaf(job, state.vectors)] if state.vectors else [])
