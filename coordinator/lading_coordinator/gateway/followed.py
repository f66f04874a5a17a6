"""A reply that another gateway can go on with: its consumer sent `x-lading-ids: 2` (lading.core.continued).

Before each run of events stands what they are, in one write with them. A reply that is one JSON has such comments
too, and the JSON is the only event. Where a part of the answer is there already, the dialect is told of it first, and
what it says of that part is not sent again.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from lading.core.continued import Begun, End, Rest, Told, line
from lading.dispatch import Ended, Moved, Piece, Started
from lading.dispatch.dispatcher import Event, Signed
from lading_coordinator.core.answer import Bill
from lading_coordinator.core.dialect import Answer, Dialect
from lading_coordinator.gateway.facts import at_start
from lading_coordinator.gateway.reply import Reply
from lading_coordinator.gateway.tellings import SSE
from lading_protocol.ids import JobId, to_hex
from lading_protocol.messages import Chance
from lading_protocol.receipts import Finish

FINISHED = {"stop": Finish.STOP, "length": Finish.LENGTH}
_ENDS: dict[Finish, End] = {Finish.STOP: "stop", Finish.LENGTH: "length", Finish.CANCELLED: "stop"}


class Course(NamedTuple):
    """Which answers are made here: `places` are those of `jobs` among all, `most` the tokens each answer may have.
    `rest` is what the consumer has of them."""

    agent: bytes
    created: int
    jobs: Sequence[JobId]
    places: Sequence[int]
    most: Sequence[int]
    rest: Rest | None
    stream: bool


class Account(NamedTuple):
    """What the whole answer comes to, over all gateways: the jobs that ended here, and what was there before."""

    ended: Sequence[Ended]
    prompt_tokens: int
    output_tokens: int


Billing = Callable[[Account], Bill]


class Followed:
    def __init__(self, reply: Reply, dialect: Dialect, course: Course, more: bytes, bill: Billing) -> None:
        self._reply = reply
        self._dialect = dialect
        self._course = course
        self._more = more
        self._bill = bill
        self._begun = [Begun(one) for one in course.most] if course.rest is None else course.rest.choices
        self._started: dict[int, Started] = {}
        self._ends: dict[int, Ended] = {}
        self._texts = [[one.text] for one in self._begun]
        self._chances = [list(one.chances) for one in self._begun]
        self._prompts = [one.prompt for one in self._begun]
        self._keeps = dialect.keeps if course.stream else ("text", "chances")
        self._opening = self._recall() if course.stream else b""
        self.drain = reply.drain
        self.lull = reply.flush

    def tell(self, index: int, event: Event) -> None:
        match event:
            case Piece():
                self._piece(index, event)
            case Signed():
                if self._reply.begun:
                    self._say(Told(index, receipt=event.receipt, marks=event.marks), b"")
            case Started():
                self._started[index] = event
                self._prompts[index] = event.prompt_tokens
            case Moved():
                self._started.pop(index, None)
            case Ended():
                self._end(index, event)
            case _:
                pass

    def _recall(self) -> bytes:
        """Brings the dialect to where the answer is; what stands before its first piece, unless that is there, too."""
        dialect, rest = self._dialect, self._course.rest
        opening = dialect.begin()
        if rest is None:
            return opening
        for at, one in enumerate(self._begun):
            if one.text or one.chances:
                dialect.piece(at, one.text, tuple(one.chances))
            if one.finish:
                dialect.finished(at, FINISHED[one.finish])
        if rest.events:
            dialect.told(rest.events)
            return b""
        return opening

    def _begin(self) -> None:
        course = self._course
        most = ",".join(map(str, course.most))
        follow = f"x-lading-agent: {to_hex(course.agent)}\r\nx-lading-max-tokens: {most}\r\n".encode()
        follow += b"cache-control: no-cache\r\nx-lading-ids: 2\r\nx-lading-created: %d\r\n" % course.created
        self._reply.start(200, SSE, follow + at_start(course.jobs, self._started.values()) + self._more)
        if self._opening:
            self._say(Told(), self._opening)

    def _piece(self, index: int, piece: Piece) -> None:
        if not self._reply.begun:
            self._begin()
        text, chances = piece.text if "text" in self._keeps else "", piece.chances if "chances" in self._keeps else ()
        if not self._course.stream:
            self._texts[index].append(text)
            self._chances[index] += chances
        told = Told(
            index,
            piece.first,
            piece.ids,
            prompt=self._prompts[index],
            cost=str(piece.cost),
            text=text,
            chances=_bare(chances) if self._keeps == ("chances",) else chances,
        )
        self._say(told, self._dialect.piece(index, piece.text, piece.chances) if self._course.stream else b"")

    def _end(self, index: int, ended: Ended) -> None:
        if not self._reply.begun:
            self._begin()
        self._ends[index] = ended
        self._prompts[index] = ended.prompt_tokens or self._prompts[index]
        events = self._dialect.finished(index, ended.finish) if self._course.stream else b""
        last = len(self._ends) == len(self._course.places)
        if last:
            bill = self._bill(self._account())
            events += self._dialect.end(bill) if self._course.stream else b"data: " + self._whole(bill) + b"\n\n"
        told = Told(index, finish=_ENDS[ended.finish], prompt=self._prompts[index], cost=str(ended.cost))
        self._say(told, events)
        if last:
            self._reply.end()

    def _account(self) -> Account:
        output = sum(len(self._ends[at].emitted if at in self._ends else one.ids) for at, one in enumerate(self._begun))
        return Account([self._ends[at] for at in self._course.places], sum(self._prompts), output)

    def _whole(self, bill: Bill) -> bytes:
        answers = [
            Answer(
                "".join(self._texts[at]),
                self._ends[at].finish if at in self._ends else FINISHED[one.finish],
                tuple(self._chances[at]),
            )
            for at, one in enumerate(self._begun)
        ]
        return self._dialect.whole(answers, bill)

    def _say(self, told: Told, events: bytes) -> None:
        counted = msgspec.structs.replace(told, events=events.count(b"\n\n"))
        self._reply.add(line(counted) + (events or b"\n"))


def _bare(chances: Sequence[Chance]) -> tuple[Chance, ...]:
    """Without the likeliest at each place: only the pieces' lengths matter."""
    return tuple(Chance(one.logprob, one.piece) for one in chances)
