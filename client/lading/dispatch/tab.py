"""What has been delivered and is not signed for yet: one voucher pays for all that came on a channel within a moment.

A voucher costs a signature and a write to the disk, which is more than all else that a short answer takes. A host lets
each job run ahead of its payment and waits for the last voucher, so that a moment costs it nothing.

An account is reported when its vouchers are on the disk: a crash between the two loses both, which a host bears within
the credit that it gave, and never leaves an account that says more than was promised.

A purse that cannot be written signs nothing: then what is owed stays here, new work is refused, and it is signed for as
soon as the purse can, once.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from lading.dispatch.purse import ChannelKey, Purse
from lading.errors import PurseError
from lading_protocol.ids import short
from lading_protocol.keys import PrivateKey

if TYPE_CHECKING:
    from lading.dispatch.attempt import Attempt

log = logging.getLogger(__name__)
TAB_SECONDS = 0.01
RETRY_SECONDS = 1.0


class _Due:
    """What is owed on one channel (wei), who signs for it, and on whose streams it was earned."""

    __slots__ = ("amount", "attempts", "key")

    def __init__(self, key: PrivateKey) -> None:
        self.key = key
        self.amount = 0
        self.attempts: dict[Attempt, None] = {}


class Tab:
    """`closed` is given the attempts that are over once their voucher is on its way."""

    def __init__(self, purse: Purse, closed: Callable[[list["Attempt"]], None]) -> None:
        self.trouble: PurseError | None = None
        self._purse = purse
        self._closed = closed
        self._due: dict[ChannelKey, _Due] = {}
        self._reports: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        purse.before_look = self.sign_all

    def due(self, key: ChannelKey) -> int:
        """Wei that the channel's next voucher will be higher by."""
        found = self._due.get(key)
        return 0 if found is None else found.amount

    def owe(self, key: PrivateKey, attempt: "Attempt", more: int) -> None:
        """`more` wei for this attempt, with the next voucher of its channel."""
        found = self._due.get(attempt.cover.key)
        if found is None:
            found = self._due[attempt.cover.key] = _Due(key)
        found.amount += more
        found.attempts[attempt] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TAB_SECONDS, self._moment)

    def when_signed(self, report: Callable[[], None]) -> None:
        """Calls it once nothing is due that is due now."""
        if self._due:
            self._reports.append(report)
        else:
            report()

    def waits(self, attempt: "Attempt") -> bool:
        """Whether a voucher is still to be sent for it."""
        found = self._due.get(attempt.cover.key)
        return found is not None and attempt in found.attempts

    def sign(self, channel: ChannelKey) -> None:
        """Now, unless the purse has the disk to itself for a moment; then with the others'."""
        due = self._due.get(channel)
        if due is not None and not self._purse.folds:
            self._sign({channel: due})

    def sign_all(self) -> None:
        """Everything that is due. What cannot be signed is tried again later."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due:
            self._sign(self._due.copy())
        if self._due:
            self._timer = asyncio.get_running_loop().call_later(RETRY_SECONDS, self.sign_all)
        else:
            self._report()

    def _moment(self) -> None:
        """What is due can wait, the streams of this program cannot."""
        if self._purse.folds:
            self._timer = asyncio.get_running_loop().call_later(TAB_SECONDS, self._moment)
        else:
            self.sign_all()

    def _sign(self, dues: dict[ChannelKey, _Due]) -> None:
        try:
            vouchers = self._purse.pay_all([(due.key, channel, due.amount) for channel, due in dues.items()])
        except PurseError as error:
            if self.trouble is None:
                for channel, due in dues.items():
                    owed = short(channel.host), due.amount, error
                    log.error("host %s is owed %d wei that cannot be signed: %s", *owed)
            self.trouble = error
            return
        self.trouble = None
        over: list[Attempt] = []
        for (channel, due), voucher in zip(dues.items(), vouchers, strict=True):
            del self._due[channel]
            for attempt in due.attempts:
                attempt.unpaid = 0
            for attempt in reversed(due.attempts):
                if attempt.send_voucher(voucher):
                    break
            over += [attempt for attempt in due.attempts if attempt.over]
        self._closed(over)

    def close(self) -> None:
        """The last chance to sign."""
        self.sign_all()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for channel, due in self._due.items():
            log.error("host %s is left unpaid for %d wei: %s", short(channel.host), due.amount, self.trouble)
        self._report()

    def _report(self) -> None:
        reports, self._reports = self._reports, []
        for report in reports:
            report()
