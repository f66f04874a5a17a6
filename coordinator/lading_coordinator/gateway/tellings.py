"""What a reply makes of its jobs' events: a stream as they come, one answer when all have ended, or vectors."""

from collections.abc import Callable, Sequence

from lading.dispatch import Ended, Moved, Piece, Rows, Started
from lading.dispatch.dispatcher import Event
from lading_coordinator.core.answer import Bill, Matrix
from lading_coordinator.core.dialect import Answer, Dialect
from lading_coordinator.gateway.elsewhere import comment
from lading_coordinator.gateway.facts import at_end, at_start
from lading_coordinator.gateway.reply import JSON, Reply
from lading_protocol.ids import JobId
from lading_protocol.messages import Chance

SSE = b"text/event-stream; charset=utf-8"
Billing = Callable[[Sequence[Ended]], Bill]


class Flowing:
    """Writes what the jobs say into a stream. `ids`: tokens are told beside the text, `more` header lines of its
    head."""

    def __init__(
        self, reply: Reply, dialect: Dialect, jobs: Sequence[JobId], more: bytes, bill: Billing, *, ids: bool = False
    ) -> None:
        self._reply = reply
        self._dialect = dialect
        self._jobs = jobs
        self._more = more
        self._bill = bill
        self._ids = ids
        self._started: dict[int, Started] = {}
        self._ends: dict[int, Ended] = {}

    def lull(self) -> bool:
        return self._reply.flush()

    async def drain(self) -> None:
        await self._reply.drain()

    def tell(self, index: int, event: Event) -> None:
        if type(event) is Piece:
            before = b"" if self._reply.begun else self._begin()
            piece = self._dialect.piece(index, event.text, event.chances)
            self._reply.add(before + (comment(event.first, event.ids, piece) if self._ids else piece))
        elif type(event) is Started:
            self._started[index] = event
        elif type(event) is Moved:
            self._started.pop(index, None)
        elif type(event) is Ended:
            self._end(index, event)

    def _begin(self) -> bytes:
        """After the head of a stream, what comes before its first piece."""
        self._reply.start(
            200, SSE, b"cache-control: no-cache\r\n" + at_start(self._jobs, self._started.values()) + self._more
        )
        return self._dialect.begin()

    def _end(self, index: int, ended: Ended) -> None:
        told = b"" if self._reply.begun else self._begin()
        self._ends[index] = ended
        told += self._dialect.finished(index, ended.finish)
        if len(self._ends) < len(self._jobs):
            self._reply.add(told)
        else:
            bill = self._bill([self._ends[at] for at in range(len(self._jobs))])
            self._reply.end(told + self._dialect.end(bill))


class Gathered:
    """Keeps what the jobs say until all have ended, and answers with all of it then."""

    def __init__(self, reply: Reply, dialect: Dialect, count: int, bill: Billing) -> None:
        self._reply = reply
        self._dialect = dialect
        self._bill = bill
        self._texts: list[list[str]] = [[] for _ in range(count)]
        self._chances: list[list[Chance]] = [[] for _ in range(count)]
        self._ends: dict[int, Ended] = {}

    def tell(self, index: int, event: Event) -> None:
        if type(event) is Piece:
            self._texts[index].append(event.text)
            if chances := event.chances:
                self._chances[index] += chances
        elif type(event) is Ended:
            self._ends[index] = event
            if len(self._ends) == len(self._texts):
                self._send()

    def lull(self) -> bool:
        return True

    async def drain(self) -> None: ...

    def _send(self) -> None:
        ended = [self._ends[at] for at in range(len(self._texts))]
        answers = [
            Answer("".join(self._texts[at]), one.finish, tuple(self._chances[at])) for at, one in enumerate(ended)
        ]
        bill = self._bill(ended)
        self._reply.send(200, self._dialect.whole(answers, bill), JSON, at_end(ended, bill))


class Vectors:
    """Keeps the rows of one embedding."""

    def __init__(self) -> None:
        self.matrix = Matrix(0, b"")
        self.ended: list[Ended] = []

    def tell(self, index: int, event: Event) -> None:
        match event:
            case Rows():
                self.matrix = Matrix(event.width, event.data)
            case Ended():
                self.ended.append(event)
            case _:
                pass

    def lull(self) -> bool:
        return True

    async def drain(self) -> None: ...
