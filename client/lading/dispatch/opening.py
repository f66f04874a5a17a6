"""How a host is asked: the message that opens an attempt, in the form that this host understands.

Which form that is, a peer says once for each link. Until it has answered it is taken for one that knows the first form
only: nothing waits for it.
"""

import asyncio
import contextlib
from typing import TYPE_CHECKING

from lading.dispatch.funds import Cover
from lading_net.errors import NetError
from lading_net.ports import Link
from lading_net.speech import agreed_with
from lading_protocol import VERSION
from lading_protocol.elder import ElderOpen
from lading_protocol.job import JobState
from lading_protocol.messages import BATCH, INTERACTIVE, BareOpen, Open
from lading_protocol.speech import PROOF

if TYPE_CHECKING:
    from lading.dispatch.dispatcher import Dispatcher
    from lading.dispatch.events import Ask
    from lading.dispatch.sheaves import Line

FEW = 64


class Spoken:
    """Which links lead to hosts that know the feature `proof`."""

    def __init__(self, owner: "Dispatcher") -> None:
        self._owner = owner
        self._known: dict[Link, bool] = {}
        self._most = FEW

    def proof(self, link: Link) -> bool:
        """What is known now; asks where nothing is."""
        found = self._known.get(link)
        if found is None:
            if len(self._known) >= self._most:
                self._known = {one: knows for one, knows in self._known.items() if not one.closed.is_set()}
                self._most = max(FEW, 2 * len(self._known))
            self._known[link] = False
            self._owner.later(asyncio.ensure_future(self._ask(link)))
        return bool(found)

    async def _ask(self, link: Link) -> None:
        with contextlib.suppress(NetError):
            self._known[link] = PROOF in (await agreed_with(link)).features


class Asking:
    """What all attempts at one job tell their hosts. `proof` is the receipt of the host that read the prompt."""

    def __init__(self, owner: "Dispatcher", ask: "Ask") -> None:
        self._owner = owner
        self._ask = ask
        self.proof = ask.proof

    def opening(self, link: Link, line: "Line | None", state: JobState, cover: Cover, preempted: int) -> ElderOpen:
        """The attempt that `state` has begun. It goes on behind the tokens there are, or asks for them from the first
        on; only then an early receipt is of use."""
        ask, attempt, emitted = self._ask, state.attempt, state.emitted
        assert attempt is not None
        proof = self.proof if emitted else b""
        early = ask.told and not emitted
        told = (
            VERSION,
            state.spec.job,
            attempt.number,
            attempt.offer.id,
            state.spec.signer,
            attempt.epoch,
            ask.request,
            tuple(emitted),
            cover.lock,
            self._owner.purse.channel(cover.key).voucher,
            BATCH if ask.batch else INTERACTIVE,
            min(preempted, 255),
        )
        # Asked for with any job, so that it is known by the time when it matters.
        proves = self._owner.spoken.proof(link)
        if line is not None:
            return BareOpen(*told, proof, False, line.name)
        return Open(*told, proof, early) if proves and (proof or early) else ElderOpen(*told)

    def line(self, link: Link) -> "Line | None":
        """On which the host signs later what it sends bare; None where it does not, or its receipts are of use at once:
        a consumer who may go on elsewhere takes them along."""
        sheaves, ask = self._owner.sheaves, self._ask
        return None if sheaves is None or ask.told else sheaves.line(link)
