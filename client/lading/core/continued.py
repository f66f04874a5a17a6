"""An answer that may come from several gateways, one after the other: what is here, and how to ask for the rest.

A gateway that is asked with `x-lading-ids: 2` says in a comment before each run of events which part of the answer they
are (Told). Such a run counts as a whole or not at all, so the next gateway goes on exactly behind what was handed out.
Pure.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from lading_protocol.eip712 import read_field, unpack
from lading_protocol.errors import LadingError
from lading_protocol.ids import to_hex
from lading_protocol.messages import MAX_TOKENS, Chance, Count
from lading_protocol.receipts import Receipt
from lading_protocol.transcript import CHUNK_TOKENS

MARK = b": lading "
MOST_CHOICES = 16
MOST_HELD = 32 << 20
Amount = Annotated[str, Meta(pattern=r"^\d{1,30}$")]
End = Literal["", "stop", "length"]


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the next `events` events of a stream are: output tokens of choice `index` from `first` on, or its end.

    `text` and `chances` are there where another gateway needs them to go on. `prompt` counts the prompt's tokens,
    `cost` is what this gateway charges for the choice so far (wei). `receipt` is a host's, packed, with what it adds to
    the marks of the one before.
    """

    index: Annotated[int, Meta(ge=0, lt=MOST_CHOICES)] = 0
    first: Count = 0
    ids: tuple[Count, ...] = ()
    events: Count = 0
    prompt: Count = 0
    cost: Amount = "0"
    text: str = ""
    chances: tuple[Chance, ...] = ()
    finish: End = ""
    receipt: bytes = b""
    marks: bytes = b""


class Begun(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A choice as far as it is here. `most` is how many tokens it may have; `proof` is the receipt of the host that
    read its prompt."""

    most: Annotated[int, Meta(ge=1, le=MAX_TOKENS)]
    ids: Annotated[list[Count], Meta(max_length=MAX_TOKENS)] = []
    text: str = ""
    chances: list[Chance] = []
    finish: End = ""
    prompt: Count = 0
    proof: Annotated[bytes, Meta(max_length=1024)] = b""


class Rest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What goes into the field `lading` of a request for the rest of an answer, of which `events` are here.

    `job` (the first of all) and `created` name the answer, `jobs` are all before, which cost `paid` wei.
    """

    agent: Annotated[str, Meta(pattern="^0x[0-9a-f]{64}$")]
    job: Annotated[str, Meta(pattern="^0x[0-9a-f]{64}$")]
    created: Annotated[int, Meta(ge=0, lt=1 << 40)]
    events: Count
    choices: Annotated[list[Begun], Meta(min_length=1, max_length=MOST_CHOICES)]
    paid: Amount = "0"
    jobs: Annotated[list[Annotated[str, Meta(max_length=66)]], Meta(max_length=1024)] = []


class Signed(msgspec.Struct):
    """The last receipt of one attempt, with all its marks."""

    job: str
    packed: bytes
    marks: tuple[bytes, ...] = ()


_told = msgspec.json.Decoder(Told)
_encode = msgspec.json.Encoder().encode


def line(told: Told) -> bytes:
    return MARK + _encode(told) + b"\n"


class Continued:
    """`fault` is what was wrong with what the gateway that is read sent, `failed` the error (code, words) with which it
    gave up, and `shown` the event that said so. `jobs` and `hosts` are all so far, in order; `receipts` the hosts'
    last ones by job and attempt."""

    def __init__(self) -> None:
        self.choices: list[Begun] = []
        self.jobs: list[str] = []
        self.hosts: list[str] = []
        self.receipts: dict[tuple[bytes, int], Signed] = {}
        self.fault: Exception | None = None
        self.failed: tuple[str, str] | None = None
        self.shown = b""
        self._agent = ""
        self._created = 0
        self._gateways = 0
        self._events = 0
        self._paid = 0
        self._costs: dict[int, int] = {}
        self._follows = False
        self._untold = False
        self._forget()

    @property
    def moved(self) -> bool:
        """Whether it came from more than one gateway."""
        return self._gateways > 1

    def _forget(self) -> None:
        """Of the gateway that is left, only what was handed out stays."""
        self._buffer = bytearray()
        self._told: Told | None = None
        self._held: list[bytes] = []
        self._size = 0
        self.fault = self.failed = None

    @property
    def begun(self) -> bool:
        """Whether a part of the answer is here, so that asking anew would repeat or charge it twice."""
        return self._untold or self._events > 0 or any(one.ids for one in self.choices)

    @property
    def able(self) -> bool:
        """Whether another gateway can go on: it is known what all that was handed out is."""
        return not self._untold

    @property
    def follows(self) -> bool:
        """Whether the gateway that is read says what its events are."""
        return self._follows

    @property
    def progress(self) -> int:
        """Grows with all that comes."""
        return self._events + sum(len(one.ids) for one in self.choices)

    @property
    def done(self) -> bool:
        return bool(self.choices) and all(one.finish for one in self.choices)

    @property
    def cost(self) -> int:
        """Wei, of all gateways."""
        return self._paid + sum(self._costs.values())

    def body(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What to ask a gateway for; for one that comes later, only the rest of the same answer."""
        self._paid, self._costs = self.cost, {}
        self._forget()
        if not self.begun:
            return dict(asked)
        rest = Rest(
            self._agent, self.jobs[0], self._created, self._events, self.choices, str(self._paid), list(self.jobs)
        )
        return {**asked, "lading": msgspec.to_builtins(rest)}

    def head(self, headers: Mapping[str, str]) -> None:
        """The head of an answer. Raises ValueError where one that goes on with it does not say what its events are."""
        self._follows = headers.get("x-lading-ids") == "2"
        if not self._follows:
            if self.begun:
                raise ValueError("it does not know how to go on with an answer")
            return
        most = [int(one) for one in headers["x-lading-max-tokens"].split(",")]
        if not self.begun:
            self._agent, self._created = headers["x-lading-agent"], int(headers["x-lading-created"])
            self.choices = [Begun(one) for one in most]
            self.jobs.clear()
            self._gateways = 0
        self._gateways += 1
        self.jobs += headers["x-lading-job"].split(",") if headers.get("x-lading-job") else []
        self.hosts += [one for one in headers.get("x-lading-host", "").split(",") if one and one not in self.hosts]

    def feed(self, data: bytes) -> list[bytes]:
        """Bytes of the stream; the events that may be handed out now, each with the empty line behind it.

        What no gateway sends ends it (`fault`): what was right before that counts.
        """
        self._buffer += data
        self._size += len(data)
        ready: list[bytes] = []
        try:
            # A long answer in one line is looked through once.
            for block in self._blocks() if b"\n" in data and self.fault is None else ():
                if found := self._block(block):
                    ready += found
                    self._size = 0
            if self._size > MOST_HELD:
                raise ValueError("an event of it has no end")
        except (msgspec.MsgspecError, LadingError, LookupError, TypeError, ValueError, AttributeError) as error:
            self.fault = error
        return ready

    def _blocks(self) -> list[bytes]:
        *blocks, left = bytes(self._buffer).replace(b"\r\n", b"\n").split(b"\n\n")
        self._buffer = bytearray(left)
        return blocks

    def end(self) -> list[bytes]:
        """The answer is over: what another server sent last, which may lack the empty line."""
        left, self._buffer = bytes(self._buffer).strip(b"\n"), bytearray()
        if self._follows or not left:
            return []
        self._untold = True
        return [left + b"\n\n"]

    def _block(self, block: bytes) -> list[bytes]:
        if block.startswith(MARK):
            if self._told is not None:
                raise ValueError("it broke off a run of events")
            head, _, block = block.partition(b"\n")
            self._told = _told.decode(head[len(MARK) :])
        elif self._told is None:
            return self._other(block)
        if block:
            self._held.append(block + b"\n\n")
        if len(self._held) < self._told.events:
            return []
        if len(self._held) > self._told.events:
            raise ValueError("it sent an event that it did not announce")
        held, self._held = self._held, []
        told, self._told = self._told, None
        self._take(told)
        return held

    def _other(self, block: bytes) -> list[bytes]:
        """An event without a word about what it is: an error of a gateway that follows, anything of another server."""
        if not self._follows:
            self._untold = True
            return [block + b"\n\n"]
        data = next((one[6:] for one in block.split(b"\n") if one.startswith(b"data: ")), b"")
        error = msgspec.json.decode(data)["error"] if data else None
        if error is not None:
            self.failed, self.shown = (str(error.get("code")), str(error["message"])), block + b"\n\n"
        return []

    def _take(self, told: Told) -> None:
        """A run is here as a whole. What is wrong in it is found before any of it counts."""
        if told.events and not told.ids and not told.finish:
            self._events += told.events
            return
        choice = self.choices[told.index]
        if told.ids and told.first != len(choice.ids):
            raise ValueError(f"it sent token {told.first} where {len(choice.ids)} is next")
        if len(choice.ids) + len(told.ids) > choice.most:
            raise ValueError(f"it sent more than the {choice.most} tokens that it said")
        if told.receipt:
            self._sign(choice, told)
        self._events += told.events
        if told.ids:
            choice.ids += told.ids
            choice.text += told.text
            choice.chances += told.chances
        choice.prompt = told.prompt or choice.prompt
        choice.finish = told.finish or choice.finish
        self._costs[told.index] = max(self._costs.get(told.index, 0), int(told.cost))

    def _sign(self, choice: Begun, told: Told) -> None:
        receipt = unpack(Receipt, told.receipt).value
        job, name = to_hex(receipt.job), (receipt.job, receipt.attempt)
        if job not in self.jobs:
            raise ValueError("it sent a receipt of another job")
        before = self.receipts.get(name)
        signed = read_field(Receipt, before.packed, "output_tokens") if before is not None else 0
        kept = before.marks[: 1 + signed // CHUNK_TOKENS] if before is not None and signed else ()
        added = tuple(told.marks[at : at + 32] for at in range(0, len(told.marks), 32))
        self.receipts[name] = Signed(job, told.receipt, (*kept, *added))
        if not choice.proof and receipt.first == 0:
            choice.proof = told.receipt
