"""Token messages that came together say what they say one by one: as much is delivered and owed, each lie is found."""

from collections import deque
from dataclasses import dataclass

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from factories import NOW, chat_request, job_id, key, known_offer, network
from lading_net.messages import MessageStream
from lading_protocol import job
from lading_protocol.heard import Heard, Joined, hear
from lading_protocol.ids import Digest
from lading_protocol.messages import Accept, Chunk, Done, Fail, Tokens, ToPayer, request_hash
from lading_protocol.pricing import attempt_amount
from lading_protocol.receipts import TIERS, Finish, Receipt
from lading_protocol.transcript import commitment, prompt_hash, roll, rolling_start

OFFER = known_offer(key("host"))
DOMAIN = network().court_domain
PROMPT = [1, 2, 3]
decoder = msgspec.msgpack.Decoder(ToPayer)


class Pipe:
    """A stream that gives what it was made with, in those pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    async def read(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def reset(self) -> None: ...


@dataclass
class Outcome:
    text: str
    ids: tuple[int, ...]
    owed: int
    count: int
    faults: list[tuple[str, bool]]


def heard(pieces: list[bytes], *, together: bool) -> Outcome:
    """What the job machine makes of a host's bytes."""
    request = chat_request("hi", 40)
    state = job.begin_attempt(job.start(job.JobSpec(job_id(), request, key("payer").address)), OFFER, 0)
    stream: MessageStream[Heard] = MessageStream(
        Pipe(list(pieces)),  # type: ignore[arg-type]
        hear if together else decoder,
    )
    found = Outcome("", (), 0, 0, [])
    while state.attempt is not None:
        try:
            stream.recv().send(None)
        except StopIteration as stop:
            event = stop.value
        if event is None:
            break
        for effect in job.apply(state, event, DOMAIN, NOW):
            match effect:
                case job.Deliver(first, ids, text):
                    assert first == len(found.ids)
                    found.ids += ids
                    found.text += text
                case job.Resume(code, _, blame):
                    found.faults.append((code, blame))
                case _:
                    pass
    current = state.attempt or state.last
    found.owed, found.count = job.owed(state), current.count if current else 0
    return found


@st.composite
def talks(draw: st.DrawFn) -> list[object]:
    """A host's messages, of which one may be a lie."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=16))
    lie = draw(st.sampled_from(("", "index", "hash", "too many")))
    at = draw(st.integers(0, len(sizes) - 1))
    messages: list[object] = [Accept(len(PROMPT), prompt_hash(PROMPT))]
    rolling, first = rolling_start(job_id()), 0
    for turn, size in enumerate(sizes):
        ids = tuple(draw(st.integers(0, 99)) for _ in range(size))
        rolling = roll(rolling, ids)
        message = Tokens(first, ids, f"<{first}>", rolling)
        if turn == at:
            message = _changed(message, lie)
        messages.append(message)
        first += size
    messages.append(draw(st.sampled_from((Fail("engine_crashed", "It broke."), Chunk(bytes(700)), Done(bytes(700))))))
    return messages


def _changed(message: Tokens, lie: str) -> Tokens:
    match lie:
        case "index":
            return msgspec.structs.replace(message, first=message.first + 1)
        case "hash":
            return msgspec.structs.replace(message, rolling=Digest(bytes(32)))
        case "too many":
            return msgspec.structs.replace(message, ids=tuple(range(60)))
        case _:
            return message


@given(talks(), st.data())
def test_how_the_messages_of_a_host_arrive_changes_nothing(messages: list[object], data: st.DataObject) -> None:
    packed = [msgspec.msgpack.encode(message) for message in messages]
    whole = b"".join(len(one).to_bytes(4, "big") + one for one in packed)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    ends = [*cuts, len(whole)]
    pieces = [whole[start:end] for start, end in zip([0, *cuts], ends, strict=True) if end > start]
    assert heard(pieces, together=True) == heard([whole], together=False)


@st.composite
def tokens_as_written(draw: st.DrawFn) -> bytes:
    """A message of tokens, of which a byte may be another one, or missing, or one too many."""
    ids = draw(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20))
    text = draw(st.text(max_size=40)) * draw(st.sampled_from((1, 1, 1, 30, 200)))
    packed = msgspec.msgpack.encode(Tokens(draw(st.integers(0, 2**32 - 1)), tuple(ids), text, Digest(bytes(32))))
    change = draw(st.sampled_from(("", "", "", "other", "missing", "more", "tag")))
    at = draw(st.integers(0, len(packed) - 1))
    byte = draw(st.binary(min_size=1, max_size=1))
    match change:
        case "other":
            return packed[:at] + byte + packed[at + 1 :]
        case "missing":
            return packed[:at] + packed[at + 1 :]
        case "more":
            return packed[:at] + byte + packed[at:]
        case "tag":  # longer than need be, and good all the same
            return packed.replace(b"\x95\xa1t", b"\x95\xd9\x01t")
        case _:
            return packed


@given(st.lists(tokens_as_written(), max_size=6))
def test_messages_are_what_they_are_one_by_one_whatever_their_bytes(payloads: list[bytes]) -> None:
    one_by_one: list[object] = []
    fault = ""
    for packed in payloads:
        try:
            one_by_one.append(decoder.decode(packed))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            fault = str(error)
            break
    found: deque[Heard] = deque()
    assert hear(payloads, found) == fault
    said = [one for event in found for one in (event.frames() if isinstance(event, Joined) else [event])]
    assert said == one_by_one


@given(st.lists(tokens_as_written(), min_size=2, max_size=6), st.integers(0, 2**32 - 1), st.integers(1, 2**17))
def test_who_follows_tokens_takes_what_is_right_and_no_more(payloads: list[bytes], due: int, most: int) -> None:
    """Indexes, sizes and hashes in a row, then whatever the messages were."""
    start = rolling = rolling_start(job_id())
    mended = []
    first = due
    for packed in payloads:
        try:
            message = decoder.decode(packed)
        except (msgspec.DecodeError, UnicodeDecodeError):
            break
        if type(message) is not Tokens or first >= 2**32:
            break
        rolling = roll(rolling, message.ids)
        mended.append(msgspec.structs.replace(message, first=first, rolling=rolling))
        first += len(message.ids)
    found: deque[Heard] = deque()
    assert hear([msgspec.msgpack.encode(one) for one in mended], found) == ""
    right = [one for one in mended if one.first + len(one.ids) <= most]
    for event in list(found)[:1]:
        if isinstance(event, Joined):
            ids, text, after, taken = event.follow(due, most, start)
            assert ids == [i for one in mended[:taken] for i in one.ids]
            assert text == "".join(one.text for one in mended[:taken])
            assert after == (mended[taken - 1].rolling if taken else start)
            assert taken <= len(right)
            assert list(event.frames(taken)) == mended[taken : len(event.frames())]


def test_the_first_token_is_not_held_for_the_next() -> None:
    """What has come is handed on, however little it is."""
    ids = (7,)
    token = Tokens(0, ids, "a", roll(rolling_start(job_id()), ids))
    messages = [Accept(len(PROMPT), prompt_hash(PROMPT)), token]
    pieces = [len(one).to_bytes(4, "big") + one for one in map(msgspec.msgpack.encode, messages)]
    stream: MessageStream[Heard] = MessageStream(Pipe(pieces), hear)  # type: ignore[arg-type]
    got = []
    for _ in messages:
        try:
            stream.recv().send(None)
        except StopIteration as stop:
            got.append(stop.value)
    assert got == messages


@given(
    st.lists(st.integers(0, 2**32 - 1), max_size=3),
    st.lists(st.integers(0, 2**32 - 1), max_size=70),
    st.tuples(*[st.integers(0, 2**32 - 1)] * 2),
    st.tuples(*[st.integers(1, 2**88)] * 2),
)
def test_a_receipt_that_says_what_happened_is_taken_whatever_the_numbers(
    before: list[int], ids: list[int], numbers: tuple[int, int], prices: tuple[int, int]
) -> None:
    """What a payer expects is written word by word, and must stay what the signed struct is."""
    offer = known_offer(key("host"), price_in=prices[0], price_out=prices[1], tier="G")
    request, signer = chat_request("hi", 100), key("payer").address
    asked = job.start(job.JobSpec(job_id(), request, signer), before)
    state = job.begin_attempt(asked, offer, numbers[0], numbers[1], bare=True)
    job.apply(state, Accept(2, prompt_hash(PROMPT)), DOMAIN, NOW)
    rolling = roll(roll(rolling_start(job_id()), before), ids)
    if ids:
        job.apply(state, Tokens(len(before), tuple(ids), "", rolling), DOMAIN, NOW)
    receipt = Receipt(
        job=job_id(),
        attempt=numbers[1],
        request=request_hash(request),
        agent=offer.agent,
        terms=offer.terms,
        host=offer.host,
        signer=signer,
        epoch=numbers[0],
        first=len(before),
        prompt_tokens=2,
        output_tokens=len(ids),
        prompt_hash=prompt_hash(PROMPT),
        commitment=commitment(job_id(), [*before, *ids], len(before)),
        price_in=prices[0],
        price_out=prices[1],
        amount=attempt_amount(offer.price, 2 if ids else 0, len(before), len(ids)),
        finish=1,
        issued_at=int(NOW),
        tier=TIERS.index("G"),
    )
    (finished,) = job.apply(state, Done(receipt.words()), DOMAIN, NOW)
    assert finished == job.Finished(Finish.STOP, receipt.words())
