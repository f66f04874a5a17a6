"""What a host's words of refusal mean, and which hosts refused a payer for its own sake (its funds, its papers).

That may be true, so no other payer hears of it; it may be a lie, so it must not cost each of the payer's jobs a try: it
asks others first for a while. Pure; `now` is in seconds.
"""

from collections.abc import Collection

import msgspec

from lading_protocol.ids import Address

# A request that no host will ever take, by a host's word: one more is asked before that is believed.
HOPELESS = frozenset({"bad_request", "too_long"})
# What may be the payer's own doing.
PAYERS = frozenset({"no_funds", "unpaid", "unproven", "bad_voucher", "channel_closed", "cancelled"})
# What says nothing against a host: others were there first, or it reads what another host made of the prompt.
BLAMELESS = HOPELESS | PAYERS | {"busy", "prompt_differs"}
MOST_PAYERS = 4096
MOST_HOSTS = 256
# From the second refusal in a row on; each time twice as long.
FIRST_SECONDS, LONGEST_SECONDS = 1.0, 300.0


class _Denial(msgspec.Struct):
    count: int = 0
    until: float = 0.0


class Denials:
    """Of the newest payers, and of each the newest hosts."""

    def __init__(self) -> None:
        self._of: dict[Address, dict[Address, _Denial]] = {}

    def note(self, payer: Address, host: Address, now: float) -> None:
        """The host would not have it."""
        hosts = self._of.pop(payer, {})
        found = hosts.pop(host, None) or _Denial()
        found.count += 1
        if found.count > 1:
            found.until = now + min(FIRST_SECONDS * 2.0 ** min(found.count - 2, 16), LONGEST_SECONDS)
        hosts[host] = found
        while len(hosts) > MOST_HOSTS:
            del hosts[next(iter(hosts))]
        self._of[payer] = hosts
        while len(self._of) > MOST_PAYERS:
            del self._of[next(iter(self._of))]

    def forget(self, payer: Address, host: Address) -> None:
        """It took a job of the payer's."""
        hosts = self._of.get(payer)
        if hosts is not None and hosts.pop(host, None) is not None and not hosts:
            del self._of[payer]

    def hosts(self, payer: Address, now: float) -> Collection[Address]:
        """Those that are asked last."""
        hosts = self._of.get(payer)
        return () if hosts is None else {host for host, one in hosts.items() if one.until > now}
