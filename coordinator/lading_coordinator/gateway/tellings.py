"""What a reply makes of its jobs' events: a stream as they come, one answer when all have ended, or vectors."""

from collections.abc import Callable, Sequence

from lading.dispatch import Ended, Moved, Piece, Rows, Started
from lading.dispatch.dispatcher import Event
from lading_coordinator.core.answer import Bill, Matrix
from lading_coordinator.core.dialect import Answer, Dialect
from lading_coordinator.gateway.elsewhere import comment
from lading_coordinator.gateway.facts import at_start
from lading_coordinator.gateway.reply import Headers, Reply
from lading_protocol.ids import JobId
from lading_protocol.messages import Chance

SSE = b"text/event-stream; charset=utf-8"
Billing = Callable[[Sequence[Ended]], Bill]


class Flowing:
    """Writes what the jobs say into a stream. `ids`: tokens are told beside the text, `more` headers of its head."""

    def __init__(
        self, reply: Reply, dialect: Dialect, jobs: Sequence[JobId], more: Headers, bill: Billing, *, ids: bool = False
    ) -> None:
        self._reply = reply
        self._dialect = dialect
        self._jobs = jobs
        self._more = more
        self._bill = bill
        self._ids = ids
        self._started: dict[int, Started] = {}
        self._ends: dict[int, Ended] = {}
        self.drain = reply.drain

    @property
    def full(self) -> bool:
        return self._reply.full

    def tell(self, index: int, event: Event) -> None:
        reply = self._reply
        match event:
            case Piece():
                if not reply.begun:
                    self._begin()
                piece = self._dialect.piece(index, event.text, event.chances)
                reply.write(comment(event.first, event.ids, piece) if self._ids else piece)
            case Started():
                self._started[index] = event
            case Moved():
                self._started.pop(index, None)
            case Ended():
                if not reply.begun:
                    self._begin()
                self._ends[index] = event
                reply.write(self._dialect.finished(index, event.finish))
                if len(self._ends) == len(self._jobs):
                    reply.write(self._dialect.end(self._bill([self._ends[at] for at in range(len(self._jobs))])))
                    reply.end()
            case _:
                pass

    def _begin(self) -> None:
        """The head of a stream, and what comes before its first piece."""
        told = (b"cache-control", b"no-cache"), *at_start(self._jobs, self._started), *self._more
        self._reply.start(200, SSE, told)
        self._reply.write(self._dialect.begin())


class Gathered:
    """Keeps what the jobs say until all have ended."""

    full = False

    def __init__(self, count: int) -> None:
        self._texts: list[list[str]] = [[] for _ in range(count)]
        self._chances: list[list[Chance]] = [[] for _ in range(count)]
        self._ends: dict[int, Ended] = {}

    def tell(self, index: int, event: Event) -> None:
        match event:
            case Piece():
                self._texts[index].append(event.text)
                self._chances[index] += event.chances
            case Ended():
                self._ends[index] = event
            case _:
                pass

    async def drain(self) -> None: ...

    @property
    def ended(self) -> list[Ended]:
        return [self._ends[index] for index in range(len(self._texts))]

    def answers(self) -> list[Answer]:
        return [
            Answer("".join(self._texts[at]), one.finish, tuple(self._chances[at])) for at, one in enumerate(self.ended)
        ]


class Vectors:
    """Keeps the rows of one embedding."""

    full = False

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

    async def drain(self) -> None: ...
