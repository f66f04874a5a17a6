"""The calls that run in one container: who waits for what, and what an agent may say about them.

No IO: messages of the agent go in, events for the callers come out of each Call. An agent that speaks of a call that it
was not given, or more than an answer can need, breaks the ABI (BadFrame).
"""

import asyncio
from collections.abc import Iterator

import msgspec
from msgspec import UNSET, UnsetType

from lading_node.engines import abi
from lading_node.engines.abi import BadFrame, FromAgent
from lading_node.engines.answer import Answer
from lading_node.engines.errors import EngineError, one_line
from lading_node.engines.port import Failed, FailureCode, Finished

# What an answer may weigh on the wire: each token in a frame of its own, and some room.
_FRAME_COST = 96
_ROOM = 2 << 20
# Tokens that are kept for a caller who takes none, when it set no limit of its own.
_AHEAD = 1 << 14


class Call:
    """One call. `answer` is None for one that wants a value (`output`); `end` is None when it ended as it should."""

    def __init__(self, id: str, number: int, answer: Answer | None, most: int, ahead: int) -> None:
        self.id = id
        self.number = number
        self.answer = answer
        self.output: msgspec.Raw | UnsetType = UNSET
        self.done = False
        self.end: Failed | Finished | None = None
        self.heard = 0.0
        self._left = _ROOM + _FRAME_COST * most
        self._ahead = ahead or _AHEAD
        self._waiter: asyncio.Future[None] | None = None

    @property
    def ahead(self) -> bool:
        """Whether its caller has enough to take for now."""
        return self.answer is not None and self.answer.waiting >= self._ahead

    @property
    def started(self) -> bool:
        return self.answer is not None and (self.answer.waiting > 0 or self.answer.count > 0)

    def spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise BadFrame("It sends more than an answer of this length can need.")

    def close(self, end: Failed | Finished | None) -> None:
        """The first end counts."""
        if not self.done:
            self.done = True
            self.end = end
            if self.answer is not None:
                self.answer.end()
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def news(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter


class Calls:
    def __init__(self) -> None:
        self._running: dict[int, Call] = {}
        self._leaving: dict[int, Call] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[Call]:
        return iter(list(self._running.values()))

    @property
    def leaving(self) -> int:
        """Calls that the agent was told to end and has not ended."""
        return len(self._leaving)

    def has(self, id: str) -> bool:
        return self.find(id) is not None

    def find(self, id: str) -> Call | None:
        for call in self._running.values():
            if call.id == id:
                return call
        return None

    def open(self, id: str, answer: Answer | None, most: int, ahead: int, now: float) -> Call:
        """Numbers are never used again, so that nothing late is taken for something new."""
        self._last += 1
        call = self._running[self._last] = Call(id, self._last, answer, most, ahead)
        call.heard = now
        return call

    def leave(self, call: Call) -> bool:
        """No caller waits for it any more. True when the agent is still at it and must be told."""
        if self._running.pop(call.number, None) is None:
            return False
        self._leaving[call.number] = call
        return True

    def drop(self, call: Call) -> None:
        """The agent never heard of it."""
        del self._running[call.number]

    def is_leaving(self, number: int) -> bool:
        return number in self._leaving

    def receive(self, message: FromAgent, size: int, now: float) -> Call | None:
        """Take in a message about a call; returns a call whose answer is complete while the agent still speaks. Raises
        BadFrame."""
        told = message.out if message.done is UNSET else message.done
        number = message.fail if isinstance(told, UnsetType) else told
        assert not isinstance(number, UnsetType)
        call = self._running.get(number) or self._leaving.get(number)
        if call is None:
            raise BadFrame(f"It speaks of the call {str(number)[:20]}, which it was not given or has ended.")
        call.spend(size)
        call.heard = now
        if message.out is not UNSET:
            return self._text(call, message.text)
        self._running.pop(number, None)
        self._leaving.pop(number, None)
        if message.fail is not UNSET:
            call.close(Failed(call.id, message.code, one_line(message.message, 300) or "The agent gave no reason."))
        else:
            call.close(_given(call, message.output))
        return None

    def _text(self, call: Call, text: str) -> Call | None:
        if call.answer is None:
            raise BadFrame("It answers with text where a value is wanted.")
        if call.number in self._leaving:
            return None
        call.answer.feed(text)
        call.wake()
        return call if call.answer.full else None

    def fail(self, code: FailureCode, why: str) -> None:
        """The agent is gone: so are all its calls."""
        for call in [*self._running.values(), *self._leaving.values()]:
            call.close(EngineError(code, why).as_event(call.id))
        self._running.clear()
        self._leaving.clear()

    @property
    def all_ahead(self) -> bool:
        """Whether nobody would miss anything if the agent were not listened to for now."""
        for call in self._running.values():
            if not call.ahead:
                return False
        return bool(self._running)


def _given(call: Call, output: msgspec.Raw | UnsetType) -> Failed | None:
    """An answer that came as a value. Text that was streamed before goes first: then the value is dropped."""
    call.output = output
    if call.answer is None or call.started or call.done:
        return None
    try:
        call.answer.feed(abi.answer(output))
    except BadFrame as error:
        return EngineError("agent_error", f"The agent broke its ABI. {error}").as_event(call.id)
    return None
