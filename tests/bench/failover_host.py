"""Hosts that answer exactly and break off as told: deaths, stalls, half, repeated and skipped frames, at any token.

Two models. The quick one's next token hashes its whole context, so one token lost, doubled or swapped changes all that
follow. The real one is the node's own generation (sampler, stop strings, grammar, resume) over its model of hashes.
"""

import asyncio
import hashlib
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from enum import Enum
from pathlib import Path

import msgspec

from factories import known_offer
from lading_contracts.deployment import Deployment
from lading_net.errors import NetError
from lading_net.messages import MessageStream
from lading_net.ports import Stream
from lading_node.engines.load import load
from lading_node.engines.port import EngineSpec, Failed, Finished, Generate, Run, Started
from lading_protocol.ids import JobId
from lading_protocol.keys import PrivateKey
from lading_protocol.messages import Accept, Cancel, ChatRequest, Chunk, Done, Open, Pay, ToHost, Tokens, request_hash
from lading_protocol.pricing import attempt_amount
from lading_protocol.receipts import Finish, Receipt
from lading_protocol.transcript import CHUNK_TOKENS, commitment, prompt_hash, roll, rolling_start

WORDS = [f"{a}{b} " for a in "bdfgklmn" for b in ("a", "e", "i", "o", "u", "ai", "ei", "ou")]
_to_host = msgspec.msgpack.Decoder(ToHost)
_real = load(EngineSpec("memory", context=4096, slots=1, seed="bench"), Path())


class Fault(Enum):
    DEATH = "death"
    STALL = "stall"
    HALF = "half frame"
    REPEATED = "repeated frame"
    SKIPPED = "skipped frame"


class Piece(msgspec.Struct, frozen=True):
    ids: tuple[int, ...]
    text: str


class Faults:
    """Which attempts break, and where: a function of job and attempt, so that a run is repeated by its seed.

    A stream's first attempt breaks with `share`, its second with `again`, none later. An attempt gets one token on at
    least: two hosts that are lost at one and the same token are the quarantine's affair.
    """

    def __init__(self, share: float, again: float, seed: int, kinds: Sequence[Fault] = tuple(Fault)) -> None:
        self._shares = (share, again)
        self._seed = seed
        self._kinds = kinds
        self.injected: dict[Fault, int] = dict.fromkeys(Fault, 0)

    def of(self, job: bytes, attempt: int, left: int) -> tuple[Fault, int] | None:
        """What happens, and after how many tokens of the attempt."""
        rng = random.Random(f"{self._seed} {job.hex()} {attempt}")
        if attempt >= len(self._shares) or left < 3 or rng.random() >= self._shares[attempt]:
            return None
        return rng.choice(self._kinds), rng.randrange(1, left - 1)


class Answerer:
    """What any host answers, from the request and the tokens that are there."""

    def __init__(self, request: ChatRequest, emitted: Sequence[int], job: bytes) -> None:
        self.finish = Finish.LENGTH
        self._request = request
        self._emitted = tuple(emitted)
        self._job = job
        text = request.messages[0].content
        self.is_real = text.startswith("real")
        self.prompt = list(text.encode())
        self.prompt_tokens, self.prompt_hash = len(self.prompt), prompt_hash(self.prompt)

    def pieces(self, burst: int) -> Iterator[Piece]:
        yield from self._generate() if self.is_real else self._hash(burst)

    def _hash(self, burst: int) -> Iterator[Piece]:
        context = hashlib.blake2b(bytes(self.prompt), digest_size=16)
        for token in self._emitted:
            context.update(token.to_bytes(4, "big"))
        at, most = len(self._emitted), self._request.max_tokens
        while at < most:
            ids = []
            for _ in range(min(burst, most - at)):
                ids.append(context.digest()[0] % len(WORDS))
                context.update(ids[-1].to_bytes(4, "big"))
            at += len(ids)
            yield Piece(tuple(ids), "".join(WORDS[one] for one in ids))

    def _generate(self) -> Iterator[Piece]:
        work = _real.begin(Generate("bench", self._request, self._emitted, 0, self._job))
        while not work.done:
            work.step()
            for event in work.take():
                match event:
                    case Started(_, tokens, digest):
                        self.prompt_tokens, self.prompt_hash = tokens, digest
                    case Run(_, _, ids, text):
                        yield Piece(tuple(ids), text)
                    case Finished(_, finish, _):
                        self.finish = Finish.STOP if finish == "stop" else Finish.LENGTH
                    case Failed():
                        raise AssertionError(f"the model failed: {event}")
                    case _:
                        pass


class Host:
    """`pause` seconds between frames of `burst` tokens; `faults` may be changed between runs. One that `swaps` its
    model gives other tokens than an honest host."""

    def __init__(self, secret: PrivateKey, record: Deployment) -> None:
        self.key = secret
        self.record = record
        self.offer = known_offer(secret, price_in=5_000, price_out=7_000, now=time.time(), slots=256)
        self.faults = Faults(0.0, 0.0, 0)
        self.pause = 0.0
        self.burst = 4
        self.swaps = False
        self.paid = 0

    async def serve(self, stream: Stream) -> None:
        messages: MessageStream[object] = MessageStream(stream, _to_host)
        with suppress(NetError):
            opening = await messages.recv()
            assert isinstance(opening, Open)
            stopped = asyncio.Event()
            reader = asyncio.ensure_future(self._read(messages, stopped))
            try:
                await _Attempt(self, messages, opening, stopped).play()
                await stopped.wait()
            finally:
                reader.cancel()

    async def _read(self, messages: MessageStream[object], stopped: asyncio.Event) -> None:
        with suppress(NetError):
            while (message := await messages.recv()) is not None:
                self.paid += isinstance(message, Pay)
                if isinstance(message, Cancel):
                    break
        stopped.set()


class _Attempt:
    def __init__(self, host: Host, messages: MessageStream[object], opening: Open, stopped: asyncio.Event) -> None:
        assert isinstance(opening.request, ChatRequest)
        self.host, self.messages, self.opening, self.stopped = host, messages, opening, stopped
        self.first = len(opening.emitted)
        self.ids: list[int] = []
        self.answer = Answerer(opening.request, opening.emitted, opening.job)
        left = opening.request.max_tokens - self.first
        self.fault = host.faults.of(opening.job, opening.attempt, left)

    async def play(self) -> None:
        job = JobId(self.opening.job)
        pieces = self.answer.pieces(self.host.burst)
        if self.host.swaps:
            pieces = (Piece(tuple(one ^ 1 for one in piece.ids), piece.text) for piece in pieces)
        ahead = next(pieces, None) if self.answer.is_real else None
        self._accept()
        rolling = roll(rolling_start(job), self.opening.emitted)
        while (piece := ahead or next(pieces, None)) is not None and not self.stopped.is_set():
            ahead = None
            at = self.first + len(self.ids)
            rolling = roll(rolling, piece.ids)
            frame = Tokens(at, piece.ids, piece.text, rolling)
            if self.fault is not None and len(self.ids) + len(piece.ids) > self.fault[1] and self.ids:
                await self._break(self.fault[0], frame, piece, pieces)
                return
            self.messages.send(frame)
            self.ids += piece.ids
            if len(self.ids) // CHUNK_TOKENS > (len(self.ids) - len(piece.ids)) // CHUNK_TOKENS:
                self.messages.send(Chunk(self._receipt(Finish.RUNNING)))
            await self.messages.drain()
            await asyncio.sleep(self.host.pause)
        self.messages.send(Done(self._receipt(Finish.CANCELLED if self.stopped.is_set() else self.answer.finish)))
        await self.messages.drain()

    def _accept(self) -> None:
        self.messages.send(Accept(self.answer.prompt_tokens, self.answer.prompt_hash))

    async def _break(self, fault: Fault, frame: Tokens, piece: Piece, pieces: Iterator[Piece]) -> None:
        """`frame` is the next one that an honest host would send."""
        self.host.faults.injected[fault] += 1
        stream = self.messages.stream
        match fault:
            case Fault.DEATH:
                stream.reset()
            case Fault.STALL:
                await self.stopped.wait()
            case Fault.HALF:
                whole = msgspec.msgpack.encode(frame)
                stream.write((len(whole).to_bytes(4, "big") + whole)[: 4 + len(whole) // 2])
                await stream.close()
            case Fault.REPEATED:
                before = self.first + len(self.ids) - 1
                self.messages.send(Tokens(before, (self.ids[-1],), "again ", frame.rolling))
            case Fault.SKIPPED:
                after = next(pieces, piece)
                rolling = roll(frame.rolling, after.ids)
                self.messages.send(Tokens(frame.first + len(piece.ids), after.ids, after.text, rolling))
        with suppress(NetError):
            await self.messages.drain()

    def _receipt(self, finish: Finish) -> bytes:
        opening, host, answer = self.opening, self.host, self.answer
        offer, count = host.offer.offer, len(self.ids)
        prompt = answer.prompt_tokens
        return (
            Receipt(
                job=opening.job,
                attempt=opening.attempt,
                request=request_hash(opening.request),
                agent=offer.agent,
                terms=offer.terms,
                host=offer.host,
                signer=opening.signer,  # type: ignore[arg-type]
                epoch=opening.epoch,
                first=self.first,
                prompt_tokens=prompt,
                output_tokens=count,
                prompt_hash=answer.prompt_hash,
                commitment=commitment(JobId(opening.job), (*opening.emitted, *self.ids), self.first),
                price_in=offer.price_in,
                price_out=offer.price_out,
                amount=attempt_amount(host.offer.price, prompt, self.first, count) if count else 0,
                finish=finish,
                issued_at=int(time.time()),
                tier=2,
            )
            .sign(host.record.court_domain, host.key)
            .pack()
        )
