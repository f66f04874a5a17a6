"""A job as its payer sees it: a state machine over attempts at one host after another.

Events go in, effects come out; the shell owns links, timers, vouchers and the consumer. It guarantees: only the next
index is accepted, the rolling hash is checked on every frame, nothing is delivered twice, and each host is owed exactly
what it delivered (plus the prompt, once, to the host that delivered the first token).
"""

import codecs
from collections.abc import Sequence
from typing import Final, assert_never

import msgspec

from lading_protocol.claims import BARE as BARE
from lading_protocol.claims import CLOCK_SKEW as CLOCK_SKEW
from lading_protocol.claims import LIED, check_receipt, lied, price_of
from lading_protocol.eip712 import Domain
from lading_protocol.errors import LadingError
from lading_protocol.heard import Heard as Heard
from lading_protocol.heard import Joined
from lading_protocol.ids import Digest, Wei
from lading_protocol.jobstate import RUNNING, Attempt
from lading_protocol.jobstate import JobSpec as JobSpec
from lading_protocol.jobstate import JobState as JobState
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
    RichChat,
    Streamed,
    Tokens,
    Vectors,
    WeighedTokens,
)
from lading_protocol.offers import KnownOffer
from lading_protocol.receipts import Finish
from lading_protocol.transcript import roll, rolling_start
from lading_protocol.work import text_bytes

_ENDS: Final = {int(end): end for end in (Finish.STOP, Finish.LENGTH, Finish.CANCELLED)}


# Events: every ToPayer message, and what the shell sees itself.


class LinkLost(msgspec.Struct, frozen=True):
    """The stream broke, or the host stalled past its limit."""

    reason: str


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
    if state.finish is not RUNNING:
        raise ValueError("the job has ended")
    mine = JobState(state.spec, state.emitted, state.rolling, state.spelled)
    mine.asked, mine.last = state.asked, state.last
    mine.prompt_tokens, mine.prompt_hash = state.prompt_tokens, state.prompt_hash
    before = state.attempts if number is None else number
    mine.attempts = before + 1
    mine.attempt = Attempt(mine, offer, epoch, before, bare)
    return mine


def owed(state: JobState) -> Wei:
    """What the payer owes the running attempt so far, or the last one when none runs. Vectors are owed once all of them
    are there and signed for."""
    attempt = state.attempt or state.last
    return Wei(0) if attempt is None else attempt.owed


def apply(state: JobState, event: Event, domain: Domain, now: float) -> list[Effect]:
    """One event at `now` (Unix seconds). `domain` is the audit court's, under which receipts are signed.

    A lie of the host becomes a Resume, and nothing that it says counts.
    """
    attempt = state.attempt
    if attempt is None:
        return []
    try:
        match event:  # the most frequent first
            case Joined():
                return _tokens(state, attempt, event)
            case Tokens():
                return _tokens(state, attempt, Joined([event], []))
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
    state.last = state.attempt
    state.attempt = None
    return [Resume(code, reason, blame)]


def _accept(state: JobState, attempt: Attempt, event: Accept) -> list[Effect]:
    prompt_tokens, prompt_hash = event.prompt_tokens, event.prompt_hash
    if attempt.accepted is not None:
        raise lied("The host accepted twice.")
    if prompt_tokens > attempt.most_prompt:
        raise lied(f"The host counts {prompt_tokens} prompt tokens where there can be {attempt.most_prompt} at most.")
    if not state.emitted or not state.prompt_hash:
        state.prompt_tokens, state.prompt_hash = prompt_tokens, prompt_hash
    elif (prompt_tokens, prompt_hash) != (state.prompt_tokens, state.prompt_hash):
        # One of the two is wrong, and which one nobody here knows: to blame the second would let a first host that lies
        # have all honest ones shunned.
        return _over(state, "prompt_differs", "It reads another prompt than the host before it.", blame=False)
    attempt.accepted = event
    return []


def _tokens(state: JobState, attempt: Attempt, said: Joined) -> list[Effect]:
    """What is right of some frames in a row is delivered and owed, also where the next one is a lie."""
    request = state.streamed
    if attempt.accepted is None or request is None:
        raise lied("The host sent tokens that nobody asked for.")
    plain, first = type(request) is ChatRequest, len(state.emitted)
    usual = Tokens
    most, rolling, lie, taken = request.max_tokens, state.rolling, "", 0
    ids: list[int] = []
    texts: list[str] = []
    chances: list[Chance] = []
    if plain:
        ids, text, after, taken = said.follow(first, most, rolling)
        rolling = Digest(after)
        texts.append(text)
    due = first + len(ids)
    for frame in said.frames(taken):
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
        ids += added
        texts.append(frame.text)
        if not plain and type(frame) is WeighedTokens:
            chances.extend(frame.chances)
    effects: list[Effect] = []
    if ids:
        text = "".join(texts) if plain or isinstance(request, ChatRequest) else _spell(state, ids)
        state.emitted += ids
        state.rolling = rolling
        attempt.count += len(ids)
        attempt.owed = price_of(state, attempt)
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
        raise lied(error.message) from error
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
        raise lied("The host sent vectors that nobody asked for.")
    row = 4 * event.width
    if len(event.data) % row or event.first * row != len(state.vectors):
        raise lied("The host's vectors have a hole or a ragged end.")
    if len(state.vectors) + len(event.data) > row * len(request.inputs):
        raise lied("The host sent more vectors than inputs.")
    state.vectors += event.data
    return []


def _chunk(state: JobState, attempt: Attempt, event: Chunk, domain: Domain, now: float) -> list[Effect]:
    if attempt.count <= attempt.signed:  # a host that says this for ever would never be found silent
        raise lied("The host signed anew, and delivered nothing since it last did.")
    _, marks = check_receipt(state, attempt, event, domain, now)
    attempt.sign(event.receipt, marks)
    return []


def _done(state: JobState, attempt: Attempt, event: Done, domain: Domain, now: float) -> list[Effect]:
    said, marks = check_receipt(state, attempt, event, domain, now)
    finish = _ENDS.get(said)
    if finish is None:
        raise lied(f"The host called the job done with finish {said}.")
    effects: list[Effect] = []
    request, vectors = state.spec.request, state.vectors
    if state.streamed is None and isinstance(request, EmbedRequest):
        width, ragged = divmod(len(vectors), 4 * len(request.inputs))
        if not width or ragged:
            raise lied("The host called the job done without a vector for each input.")
        effects.append(DeliverRows(width, vectors))
        attempt.owed = price_of(state, attempt)
    attempt.sign(event.receipt, marks)
    state.finish = finish
    effects.append(Finished(finish, event.receipt))
    return effects
