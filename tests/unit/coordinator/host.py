"""A host for the coordinator's tests: speaks heartbeat, job, audit and blob over any transport, with a toy for a model.

Its answer is a pure function of the request, so that any two hosts give the same one. What it does wrong is said at
construction; there is no engine, no voucher check and no chain behind it.
"""

import asyncio
import codecs
import struct
from collections.abc import Callable, Sequence

import msgspec

from factories import detail
from lading_contracts.deployment import Deployment
from lading_net.errors import NetError
from lading_net.messages import MessageStream
from lading_net.ports import Link, Stream, Transport
from lading_net.speech import serve_speech
from lading_node.binder import Binder
from lading_protocol import VERSION
from lading_protocol.audit import seal
from lading_protocol.eip712 import unpack
from lading_protocol.ids import Address, AgentId, JobId
from lading_protocol.keys import PrivateKey
from lading_protocol.messages import (
    AUDIT,
    BLOB,
    HEARTBEAT,
    JOB,
    SHEAVES,
    Accept,
    Advert,
    BareOpen,
    Beat,
    BlobPart,
    CallRequest,
    Cancel,
    Case,
    Chance,
    ChatRequest,
    Check,
    Chunk,
    Done,
    EmbedRequest,
    Fail,
    Fee,
    Finding,
    GetBlob,
    Hello,
    NoBlob,
    Open,
    Pay,
    Refuse,
    Reveal,
    RichChat,
    Sealed,
    Sketch,
    Streamed,
    ToAuditor,
    ToHost,
    Tokens,
    Vectors,
    WeighedTokens,
    encode,
    request_hash,
)
from lading_protocol.offers import KnownOffer, check_advert, make_advert
from lading_protocol.pricing import attempt_amount
from lading_protocol.receipts import Finish, Offer, Receipt, SignedReceipt, receipt_leaf
from lading_protocol.transcript import (
    CHUNK_TOKENS,
    commitment,
    merkle_root,
    prompt_hash,
    roll,
    rolling_start,
    vectors_leaf,
)
from lading_protocol.work import id_bytes, task_prompt, text_ids

_to_host = msgspec.msgpack.Decoder(ToHost)
_to_auditor = msgspec.msgpack.Decoder(ToAuditor)
_get = msgspec.msgpack.Decoder(GetBlob)
EOS = 2
WIDTH = 4
WORDS = ["the ", "fox ", "went ", "over ", "a ", "hill ", "and ", "slept "]


class Habits(msgspec.Struct, frozen=True):
    """`length` tokens end an answer, one each `pause` seconds; without one the first comes alone and the rest together,
    or all `at_once`. `dies_after` tokens (or vectors) the link is gone, `fails_after` so many its engine breaks. It
    `refuses` every job, or `swaps` the model (other tokens than an honest host's). `verdict` and `worst` override an
    audit's; `salt` is shown in place of the one that sealed it. What it `says` stands in place of the toy's words. Its
    receipts may be for the agent that it `signs_for`, and with `halves` a character of every frame is cut through. A
    `mute` one ends without a token, an `untold` one keeps how likely they were to itself. With `slots` it has so many
    and refuses when they are taken; else it takes all. Only if it `takes_fees` does it say that it knows them. Its
    offers name its `region` and `endpoint`. One that does not bind is of an older program and signs each receipt at
    once."""

    length: int = 12
    pause: float = 0.0
    at_once: bool = False
    dies_after: int = -1
    refuses: Refuse | None = None
    fails_after: int = -1
    swaps: bool = False
    verdict: int | None = None
    worst: float = 0.0
    audits: bool = True
    salt: bytes = b""
    price_in: int = 1_000_000
    price_out: int = 2_000_000
    burst: int = 1
    says: str = ""
    signs_for: bytes = b""
    halves: bool = False
    mute: bool = False
    untold: bool = False
    slots: int = 0
    takes_fees: bool = False
    region: str = ""
    endpoint: str = ""
    binds: bool = True


class Host:
    def __init__(
        self,
        transport: Transport,
        key: PrivateKey,
        record: Deployment,
        agents: Sequence[tuple[bytes, bytes, str]],
        clock: Callable[[], float],
        habits: Habits | None = None,
        blobs: dict[bytes, bytes] | None = None,
    ) -> None:
        self.transport = transport
        self.key = key
        self.record = record
        self.clock = clock
        self.habits = habits or Habits()
        self.blobs = blobs or {}
        self.served: list[Open] = []
        # With the number of the job on whose stream it came: messages of two streams may overtake each other.
        self.heard: list[tuple[int, Open | Pay]] = []
        self.cancelled = self.refused = 0
        self.bound: list[SignedReceipt] = []
        self.stopped = asyncio.Event()
        self.checked: list[Case] = []
        self.offers: dict[bytes, KnownOffer] = {}
        self.agents = agents
        self._state()
        transport.handle(JOB, self._job)
        transport.handle(AUDIT, self._audit)
        transport.handle(BLOB, self._blob)
        self.binder = Binder(key, record.court_domain)
        if self.habits.binds:
            transport.handle(SHEAVES, self.binder.serve)
        self.fees: list[Fee] = []
        if self.habits.takes_fees:
            serve_speech(transport)
        self.link: Link | None = None
        self.running = self.most_running = 0

    async def join(self, endpoint: str, period: float = 1.0) -> None:
        """Dial the coordinator and beat until cancelled or cut off."""
        self.link = await self.transport.dial(endpoint, None)
        stream = await self.link.open(HEARTBEAT)
        messages: MessageStream[Beat] = MessageStream(stream, msgspec.msgpack.Decoder(Beat))
        try:
            stated: list[bytes] = []
            while True:
                if stated != list(self.offers):
                    stated = list(self.offers)
                    messages.send(Hello(VERSION, tuple(known.advert for known in self.offers.values())))
                messages.send(Beat(self.habits.slots - self.running if self.habits.slots else 4, 0))
                await messages.drain()
                await asyncio.sleep(period)
        except NetError:
            return

    def reprice(self, price_in: int, price_out: int) -> None:
        """From the next beat on; the older offers are withdrawn."""
        self.habits = msgspec.structs.replace(self.habits, price_in=price_in, price_out=price_out)
        self.offers.clear()
        self._state()

    def _state(self) -> None:
        for agent, terms, name in self.agents:
            known = check_advert(self._advert(agent, terms, name), self.record.settlement_domain, self.clock())
            self.offers[known.id] = known

    def _advert(self, agent: bytes, terms: bytes, name: str) -> Advert:
        offer = Offer(
            self.key.address,
            agent,
            terms,
            self.habits.price_in,
            self.habits.price_out,
            self.habits.slots or 4,
            int(self.clock()),
            int(self.clock()) + 3600,
            bytes(32),
        )
        habits = self.habits
        about = detail(name=name, region=habits.region, endpoints=(habits.endpoint,) if habits.endpoint else ())
        return make_advert(offer, about, self.record.settlement_domain, self.key)

    # Jobs

    async def _job(self, stream: Stream) -> None:
        messages: MessageStream[object] = MessageStream(stream, _to_host)
        opening = await messages.recv()
        assert isinstance(opening, Open)
        number = len(self.served)
        self.served.append(opening)
        self.heard.append((number, opening))
        known = self.offers.get(opening.offer)
        if self.habits.refuses is not None or known is None:
            messages.send(self.habits.refuses or Refuse("offer_unknown", "This offer is not known here."))
            return
        if self.habits.slots and self.running >= self.habits.slots:
            self.refused += 1
            messages.send(Refuse("busy", f"All {self.habits.slots} slots of this host are taken.", 500))
            return
        stopped = asyncio.Event()
        reader = asyncio.create_task(self._read(messages, stopped, number))
        try:
            attempt = _Attempt(self, messages, opening, known, stopped)
            await self._work(attempt, opening)
            await messages.drain()
            await messages.close()
            await reader  # the last voucher is waited for, and takes no slot
        finally:
            reader.cancel()

    async def _work(self, attempt: "_Attempt", opening: Open) -> None:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await (attempt.embed() if isinstance(opening.request, EmbedRequest) else attempt.chat())
        finally:
            self.running -= 1

    async def _read(self, messages: MessageStream[object], stopped: asyncio.Event, number: int) -> None:
        try:
            while (message := await messages.recv()) is not None:
                if isinstance(message, Pay):
                    self.heard.append((number, message))
                elif isinstance(message, Cancel):
                    self.cancelled += 1
                    self.stopped.set()
                    stopped.set()
        except NetError:
            self.cancelled += 1
        stopped.set()

    # Audits and blobs

    async def _audit(self, stream: Stream) -> None:
        messages: MessageStream[ToAuditor] = MessageStream(stream, _to_auditor)
        ask = await messages.recv()
        assert isinstance(ask, Check)
        self.checked.append(ask.case)
        receipt = unpack(Receipt, ask.case.receipt)
        leaf, salt = receipt_leaf(receipt), bytes(32)
        if not self.habits.audits:
            messages.send(Refuse("busy", "No time."))
            return
        messages.send(Sealed(seal(salt, leaf, b"", b"")))
        opened = await messages.recv()
        case = msgspec.structs.replace(ask.case, vectors=opened.data) if isinstance(opened, Sketch) else ask.case
        verdict = self.habits.verdict
        if verdict is None:
            verdict = 1 if _is_right(case, receipt) else 2
        messages.send(Finding(leaf, verdict, "toy", "compared with the toy", self.habits.worst, 0, 1))
        messages.send(Reveal(self.habits.salt or salt, b""))
        messages.send(Sketch(b""))
        await messages.drain()
        if isinstance(fee := await messages.recv(), Fee):
            self.fees.append(fee)

    async def _blob(self, stream: Stream) -> None:
        messages: MessageStream[GetBlob] = MessageStream(stream, _get)
        while (ask := await messages.recv()) is not None:
            data = self.blobs.get(ask.digest)
            answer = NoBlob(ask.digest)
            if data is not None:
                answer = BlobPart(len(data), data[ask.offset : ask.offset + ask.length])  # type: ignore[assignment]
            messages.send(answer)
            await messages.drain()


class _Attempt:
    def __init__(
        self, host: Host, messages: MessageStream[object], opening: Open, known: KnownOffer, stopped: asyncio.Event
    ) -> None:
        self.host = host
        self.messages = messages
        self.opening = opening
        self.known = known
        self.stopped = stopped
        self.job = JobId(opening.job)
        self.prompt = prompt_of(opening.request)
        self.ids: list[int] = []
        self.data = b""

    async def chat(self) -> None:
        opening, habits = self.opening, self.host.habits
        assert not isinstance(opening.request, EmbedRequest)
        self.messages.send(Accept(len(self.prompt), prompt_hash(self.prompt)))
        rolling = roll(rolling_start(self.job), opening.emitted)
        whole = answer_of(opening.request, habits.length, swapped=habits.swaps)
        if habits.mute:
            whole = []
        if habits.says:
            whole = [*text_ids(habits.says.encode()), EOS][: opening.request.max_tokens]
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        at, waiting, finish = len(opening.emitted), [], Finish.STOP
        for index in range(at, len(whole)):
            if self.stopped.is_set():
                finish = Finish.CANCELLED
                break
            if len(self.ids) == habits.dies_after and self.host.link is not None:
                await self.messages.drain()
                await self.host.transport.close()
                return
            if len(self.ids) == habits.fails_after:
                if self.ids:
                    self.messages.send(Chunk(self.receipt(Finish.RUNNING)))
                self.messages.send(Fail("engine_crashed", "The toy broke."))
                return
            self.ids.append(whole[index])
            waiting.append(whole[index])
            if len(waiting) >= habits.burst or index == len(whole) - 1 or len(self.ids) % CHUNK_TOKENS == 0:
                rolling = roll(rolling, waiting)
                text = "".join(decoder.decode(id_bytes(one)) if one > 1 << 20 else text_of(one) for one in waiting)
                frame = Tokens(at, tuple(waiting), text, rolling)
                frame = frame if habits.untold else told(opening.request, frame)
                if habits.halves:
                    cut = encode(frame).replace(text.encode(), text.encode()[:-1] + b"\xc3")
                    self.messages.stream.write(len(cut).to_bytes(4, "big") + cut)
                else:
                    self.messages.send(frame)
                if opening.early and not at:
                    self.messages.send(Chunk(self.receipt(Finish.RUNNING)))
                at, waiting = at + len(waiting), []
            if len(self.ids) % CHUNK_TOKENS == 0:
                self.messages.send(Chunk(self.receipt(Finish.RUNNING)))
            if habits.pause or (len(self.ids) == 1 and not habits.at_once):
                await self.messages.drain()
                await asyncio.sleep(self.host.habits.pause)
        if finish is Finish.STOP and not habits.mute and not ends(opening.request, whole):
            finish = Finish.LENGTH
        self.messages.send(Done(self.receipt(finish)))

    async def embed(self) -> None:
        self.messages.send(Accept(len(self.prompt), prompt_hash(self.prompt)))
        inputs, habits = self.opening.request.inputs, self.host.habits  # type: ignore[union-attr]
        for row in range(len(inputs) + 1):
            if habits.pause:
                await self.messages.drain()
                await asyncio.sleep(habits.pause)
            if row == habits.dies_after and self.host.link is not None:
                await self.messages.drain()
                await self.host.transport.close()
                return
            if row == habits.fails_after:
                self.messages.send(Fail("engine_crashed", "The toy broke."))
                return
            if row < len(inputs):
                self.messages.send(Vectors(row, WIDTH, vectors_of(inputs[row : row + 1])))
                self.data += vectors_of(inputs[row : row + 1])
        self.messages.send(Done(self.receipt(Finish.STOP)))

    def receipt(self, finish: Finish) -> bytes:
        opening, offer, first = self.opening, self.known.offer, len(self.opening.emitted)
        chat = not isinstance(opening.request, EmbedRequest)
        root = (
            commitment(self.job, (*opening.emitted, *self.ids), first)
            if chat
            else merkle_root([vectors_leaf(self.job, self.data)] if self.data else [])
        )
        delivered = bool(self.ids or self.data)
        prompt = len(self.prompt) if delivered else 0
        amount = attempt_amount(self.known.price, prompt, first, len(self.ids))
        receipt = Receipt(
            job=opening.job,
            attempt=opening.attempt,
            request=request_hash(opening.request),
            agent=AgentId(self.host.habits.signs_for) or offer.agent,
            terms=offer.terms,
            host=offer.host,
            signer=opening.signer,  # type: ignore[arg-type]
            epoch=opening.epoch,
            first=first,
            prompt_tokens=len(self.prompt),
            output_tokens=len(self.ids),
            prompt_hash=prompt_hash(self.prompt),
            commitment=root,
            price_in=offer.price_in,
            price_out=offer.price_out,
            amount=amount,
            finish=int(finish),
            issued_at=int(self.host.clock()),
            tier=2,
        )
        if isinstance(opening, BareOpen) and finish is not Finish.RUNNING:
            peer = Address(self.messages.stream.peer)
            if self.host.binder.put(peer, opening.sheaves, receipt, self.host.bound.append):
                return receipt.words()
        return receipt.sign(self.host.record.court_domain, self.host.key).pack()


def prompt_of(request: object) -> list[int]:
    if isinstance(request, CallRequest):
        return task_prompt(request)
    if isinstance(request, RichChat) and request.prompt is not None:
        return [len(word) for word in request.prompt.split()] if isinstance(request.prompt, str) else [*request.prompt]
    texts = [m.content for m in request.messages] if isinstance(request, ChatRequest) else request.inputs  # type: ignore[attr-defined]
    return [len(word) for text in texts for word in text.split()] or [0]


def answer_of(request: Streamed, length: int, *, swapped: bool = False) -> list[int]:
    if isinstance(request, CallRequest):
        return text_ids(b'{"echo":' + request.input + b"}")[: request.max_tokens]
    start = sum(prompt_of(request))
    step = 5 if swapped else 1
    ids = [10 + (start + step * i) % len(WORDS) for i in range(length - 1)] + [EOS]
    return ids[: request.max_tokens]


def ends(request: Streamed, whole: Sequence[int]) -> bool:
    """Whether an answer ends by itself."""
    if isinstance(request, CallRequest):
        return len(whole) < request.max_tokens
    return bool(whole) and whole[-1] == EOS


def text_of(token: int) -> str:
    if token > EOS + 10 + len(WORDS):
        return id_bytes(token).decode(errors="replace")
    return "" if token == EOS else WORDS[token - 10]


def told(request: Streamed, tokens: Tokens) -> Tokens:
    """With the chances that a request asks for."""
    if not isinstance(request, RichChat) or not request.logprobs:
        return tokens
    chances = tuple(chance_of(token, request.logprobs - 1) for token in tokens.ids)
    return WeighedTokens(tokens.first, tokens.ids, tokens.text, tokens.rolling, chances)


def chance_of(token: int, likely: int) -> Chance:
    first = (-0.25, text_of(token).encode())
    return Chance(*first, (first, *((-2.0 - i, b"other %d" % i) for i in range(1, likely)))[:likely])


def vectors_of(inputs: Sequence[str]) -> bytes:
    return b"".join(struct.pack("<4f", len(text), text.count(" "), 0.5, -1.25) for text in inputs)


def _is_right(case: Case, receipt: SignedReceipt) -> bool:
    if isinstance(case.request, EmbedRequest):
        return case.vectors == vectors_of(case.request.inputs)
    first, count = receipt.value.first, receipt.value.output_tokens
    return list(case.emitted[first : first + count]) == answer_of(case.request, 10_000)[first : first + count] or list(
        case.emitted
    ) == answer_of(case.request, len(case.emitted))
