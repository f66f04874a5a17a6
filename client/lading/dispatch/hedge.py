"""Two hosts race for the first token where the first host is late with it; who is first goes on alone.

The other one is cancelled before it has delivered anything. If its first token was on the way just then, it is paid
for what arrived, as every host is: that is the price of a race between two that are equally fast.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from lading.dispatch.attempt import Attempt, Stalled
from lading.dispatch.events import Moved
from lading.errors import OutOfFunds, PurseError
from lading_protocol.job import Deliver, Effect, Finished, Resume
from lading_protocol.job import Event as HostEvent

if TYPE_CHECKING:
    from lading.dispatch.running import Run


class Race:
    """`run.current` is the winner when `first_token` returns, or the last one that gave up."""

    def __init__(self, run: "Run", attempt: Attempt) -> None:
        self._run = run
        self._listening: dict[asyncio.Task[Any], Attempt] = {}
        self._dialling: asyncio.Task[Any] | None = None
        self._hedged = self._decided = False
        self._listen(attempt)
        after = run.owner.failover.hedge_after(attempt.offer.host, run.weight)
        self._hedge_at = None if after is None else attempt.opened_at + after

    async def first_token(self) -> None:
        """Until the consumer has heard the first token, or of the end of all attempts."""
        try:
            while not self._decided and (self._listening or self._dialling is not None):
                waits = set(self._listening) if self._dialling is None else {*self._listening, self._dialling}
                done, _ = await asyncio.wait(waits, timeout=self._left(), return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    self._hedge()
                await self._take(done)
        finally:
            self._stop()

    async def _take(self, done: set[asyncio.Task[Any]]) -> None:
        """What happened in one turn, until it is decided: whoever was reached in the same one need not be asked."""
        for task in done:
            if self._decided:
                return
            if task is self._dialling:
                self._join()
            elif (attempt := self._listening.pop(task, None)) is not None:
                await self._heard(attempt, task.result())

    def _listen(self, attempt: Attempt) -> None:
        self._listening[asyncio.ensure_future(attempt.next())] = attempt

    def _left(self) -> float | None:
        """Seconds until a second host is worth asking; None when it is not."""
        if self._hedged or self._hedge_at is None:
            return None
        return max(0.0, self._hedge_at - asyncio.get_running_loop().time())

    def _hedge(self) -> None:
        """Reach for a second host; the first one is listened to meanwhile."""
        self._hedged = True
        run = self._run
        pick = run.choose()
        if pick is not None and run.owner.failover.hedges.take():
            self._dialling = asyncio.ensure_future(run.open(pick))

    def _reached(self) -> Attempt | None:
        dialling, self._dialling = self._dialling, None
        assert dialling is not None
        try:
            found: Attempt | None = dialling.result()
        except (OutOfFunds, PurseError):
            return None  # one host at a time is what the money is enough for
        return found

    def _join(self) -> None:
        run, rival = self._run, self._reached()
        if rival is None:
            return
        if not self._listening:
            run.current, run.state = rival, rival.state
        rival.begin(run.owner.failover, run.moves, run.weight)
        self._listen(rival)

    def _stop(self) -> None:
        """Nobody listens any more."""
        run = self._run
        for task, attempt in self._listening.items():
            if not task.cancel():
                run.overhear(attempt, task)
        if self._dialling is None:
            return
        if self._dialling.cancel():
            run.owner.later(self._dialling)
        elif (rival := self._reached()) is not None:
            run.settle(rival, wanted=False)  # it was never asked

    async def _heard(self, attempt: Attempt, event: HostEvent) -> None:
        run = self._run
        if type(event) is Stalled and not self._listening:
            event = await run.hold(attempt, event)
        effects = attempt.apply(event, run.owner.court, run.owner.clock())
        if any(isinstance(effect, Deliver | Finished) for effect in effects):
            self._won(attempt, effects)
        elif any(isinstance(effect, Resume) for effect in effects):
            self._gave_up(attempt, effects)
        else:
            self._listen(attempt)

    def _won(self, attempt: Attempt, effects: list[Effect]) -> None:
        run, self._decided = self._run, True
        for task, slower in self._listening.items():
            run.drop(slower, task)
            run.listener.hear(Moved(slower.offer.host, "slower", "another host was first"))
        self._listening.clear()
        run.current, run.state = attempt, attempt.state
        run.tell(attempt, effects)

    def _gave_up(self, attempt: Attempt, effects: list[Effect]) -> None:
        """The other one, if there is one, goes on alone."""
        run = self._run
        run.current, run.state = attempt, attempt.state
        run.tell(attempt, effects)
        for other in self._listening.values():
            run.current, run.state = other, other.state
