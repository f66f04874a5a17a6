"""What comes together is handed on together, and nothing waits for what may not come."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from factories import chat_request, job_id, key
from lading.dispatch import Ask, Ended, Moved, Payer, Piece, Started
from lading.dispatch.dispatcher import Event
from lading_net.messages import MessageStream
from lading_protocol.ids import JobId, Wei
from lading_protocol.messages import Chunk, Done, Fail, Open, Pay, Tokens, encode
from lading_protocol.receipts import Finish
from lading_protocol.transcript import roll, rolling_start
from unit.client.toys import ANSWER, PAYER, WHOLE, Host, World, honest, learn, prefer, simulate, text_of, world

Script = Callable[["Scripted", Open], Awaitable[None]]


class Scripted(Host):
    """Says what `script` says, so many messages in one write as it is told at once."""

    def __init__(self, label: str, script: Script) -> None:
        super().__init__(key(label))
        self.script = script

    async def _answer(self, messages: MessageStream[Open | Pay], ask: Open) -> None:
        self.messages = messages
        await self.script(self, ask)

    def say(self, *messages: msgspec.Struct) -> None:
        bodies = [encode(message) for message in messages]
        self.messages.stream.write(b"".join(len(body).to_bytes(4, "big") + body for body in bodies))

    def tokens(self, ask: Open, begin: int, end: int) -> Tokens:
        rolling = roll(rolling_start(JobId(ask.job)), ANSWER[:end])
        return Tokens(begin, ANSWER[begin:end], "".join(f"{i} " for i in ANSWER[begin:end]), rolling)

    def chunk(self, ask: Open, count: int) -> Chunk:
        return Chunk(self._receipt(ask, count, Finish.RUNNING))

    def done(self, ask: Open) -> Done:
        return Done(self._receipt(ask, len(ANSWER) - len(ask.emitted), Finish.STOP))


class Diary:
    """A listener that hands on what it heard when it has to: `left` are the events that left together. It wants no more
    after so many times, for a second."""

    def __init__(self, fits: int = 1000) -> None:
        self.held: list[Event] = []
        self.left: list[list[Event]] = []
        self.fits = fits

    def hear(self, event: Event) -> None:
        self.held.append(event)
        if isinstance(event, Ended):
            self.lull()

    def lull(self) -> bool:
        if self.held:
            self.left.append(self.held)
            self.held = []
        return len(self.left) < self.fits

    async def drain(self) -> None:
        self.lull()
        await asyncio.sleep(1)
        self.fits += 1

    @property
    def kinds(self) -> list[list[type[Event]]]:
        return [[type(event) for event in together] for together in self.left]

    @property
    def text(self) -> str:
        return text_of([event for together in self.left for event in together])


def carry(w: World, diary: Diary, *, hedge: bool = False) -> Awaitable[None]:
    payer, request = Payer(PAYER, PAYER.address, Wei(10**9)), chat_request(max_tokens=100)
    ask = Ask(w.hosts[0].offer.agent, request, hedge=hedge)
    return w.dispatcher.carry(payer, ask, diary, job_id())


def hear(*hosts: Host, fits: int = 1000) -> Diary:
    diary = Diary(fits)

    async def play() -> None:
        async with world(*hosts) as w:
            prefer(w, *w.hosts)
            await carry(w, diary)

    simulate(play)
    return diary


def test_a_burst_with_its_end_is_handed_on_at_once_and_whole() -> None:
    diary = Diary()

    async def script(host: Scripted, ask: Open) -> None:
        rest = host.tokens(ask, 32, 80)
        host.say(host.tokens(ask, 0, 3), host.tokens(ask, 3, 32), host.chunk(ask, 32), rest, host.done(ask))
        assert diary.kinds == [[Started], [Piece, Piece, Ended]]  # in the turn in which it came

    async def play() -> None:
        async with world(Scripted("one", script)) as w:
            await carry(w, diary)
            assert diary.text == WHOLE
            assert w.ended == [diary.left[-1][-1]]

    simulate(play)


def test_a_token_that_comes_alone_leaves_in_the_turn_in_which_it_came() -> None:
    diary = Diary()

    async def script(host: Scripted, ask: Open) -> None:
        for at in range(80):
            host.say(host.tokens(ask, at, at + 1))
            assert len(diary.left) == at + 2
            assert diary.text == "".join(f"{i} " for i in ANSWER[: at + 1])
            await asyncio.sleep(0.01 if at % 2 else 0)
        host.say(host.done(ask))
        assert diary.kinds[-1] == [Ended]

    async def play() -> None:
        async with world(Scripted("one", script)) as w:
            await carry(w, diary)

    simulate(play)


@pytest.mark.parametrize("hedge", [False, True])
@pytest.mark.parametrize("silence", [0.0, 4.0])
def test_a_token_leaves_at_once_also_of_a_race_and_of_a_stream_that_was_held(silence: float, hedge: bool) -> None:
    diary = Diary()

    async def script(host: Scripted, ask: Open) -> None:
        for at in range(3 if len(host.opened) > 25 else 0):
            await asyncio.sleep(silence)  # longer than it is waited for, but nobody else is there
            host.say(host.tokens(ask, at, at + 1))
            await asyncio.sleep(0.001)
            assert diary.text == "".join(f"{i} " for i in ANSWER[: at + 1])
        rest = [host.tokens(ask, 0, 3)] if len(host.opened) <= 25 else []
        host.say(*rest, host.tokens(ask, 3, 80), host.done(ask))

    async def play() -> None:
        async with world(Scripted("one", script)) as w:
            await learn(w, *w.hosts)
            await carry(w, diary, hedge=hedge)
            assert diary.text == WHOLE
            assert diary.kinds[-1] == [Piece, Ended]

    simulate(play)


def test_what_a_host_said_before_it_broke_leaves_before_another_answers() -> None:
    diary = Diary()

    async def breaks(host: Scripted, ask: Open) -> None:
        host.say(host.tokens(ask, 0, 3), host.tokens(ask, 3, 5), Fail("engine_died", "The engine ended."))
        assert diary.kinds == [[Started], [Piece, Moved]]

    async def slow(host: Scripted, ask: Open) -> None:
        await asyncio.sleep(0.5)
        host.say(host.tokens(ask, 5, 80), host.done(ask))

    async def play() -> None:
        async with world(Scripted("one", breaks), Scripted("two", slow)) as w:
            prefer(w, *w.hosts)
            await carry(w, diary)
            assert diary.kinds[2:] == [[Piece, Ended]]
            assert diary.text == WHOLE

    simulate(play)


def test_what_is_paid_for_has_left() -> None:
    """A program that is killed behind a voucher has told its consumer what it is for."""
    diary = Diary()

    async def script(host: Scripted, ask: Open) -> None:
        host.say(host.tokens(ask, 0, 32), host.chunk(ask, 32))
        assert isinstance(await host.messages.recv(), Pay)
        assert diary.text == "".join(f"{i} " for i in ANSWER[:32])
        host.say(host.tokens(ask, 32, 80), host.done(ask))

    async def play() -> None:
        async with world(Scripted("one", script)) as w:
            await carry(w, diary)
            assert diary.text == WHOLE

    simulate(play)


@pytest.mark.parametrize("fits", [1, 2, 3])
def test_a_listener_that_wants_no_more_loses_nothing_of_a_burst(fits: int) -> None:
    async def script(host: Scripted, ask: Open) -> None:
        host.say(host.tokens(ask, 0, 3), host.chunk(ask, 3), host.tokens(ask, 3, 50), host.chunk(ask, 50))
        await asyncio.sleep(0.01)
        host.say(host.tokens(ask, 50, 80), host.done(ask))

    diary = hear(Scripted("one", script), fits=fits)
    assert diary.text == WHOLE
    assert diary.kinds[-1][-1] is Ended


class Fussy(Diary):
    """Does not take the fifth piece."""

    def hear(self, event: Event) -> None:
        super().hear(event)
        if isinstance(event, Piece) and event.first == 4:
            raise RuntimeError("no more of this")


def test_what_a_listener_raises_ends_its_job_and_all_that_came_is_paid() -> None:
    async def play() -> None:
        async with world(honest) as w:
            with pytest.raises(RuntimeError, match="no more of this"):
                await carry(w, Fussy())
            await w.dispatcher.close()
            assert w.dispatcher.reserved == {}
            [account] = w.ended
            assert account.cost == w.promised(w.hosts[0]) > 0

    simulate(play)
