"""What the bidding commands work on: share auctions and promotion slots by name, their phases, and what a person types.

A share auction is named by its 0x id, a promotion slot by EPOCH/SLOT, such as 12/0. Shares are typed as 2.5% or 250bps.
"""

import time
from typing import Any

import msgspec

from lading.cli import context, history
from lading.cli.context import Desk
from lading.core.bidding import ShareRules
from lading.errors import BadSettings
from lading.seals import Seals
from lading_contracts import events
from lading_contracts.epochs import Calendar
from lading_contracts.registry import Party, Role
from lading_contracts.shares import HOSTS
from lading_protocol.ids import AgentId, Digest, digest, short, to_hex

_ROLES = {"host": HOSTS, **{role.name.lower(): int(role) for role in Role}}


class Slot(msgspec.Struct, frozen=True):
    """One place in the index for one epoch, counted from 0."""

    epoch: int
    number: int

    @property
    def name(self) -> str:
        return f"{self.epoch}/{self.number}"


class Sale(msgspec.Struct):
    """A share auction as its events tell it. `state` is open, settled or void."""

    opened: events.AuctionOpened
    state: str = "open"
    bps: int = 0

    @property
    def name(self) -> str:
        return to_hex(self.opened.id)

    @property
    def rules(self) -> ShareRules:
        one = self.opened
        return ShareRules(one.role, one.seats, one.reserve_bps, one.base)

    @property
    def role(self) -> str:
        return role_name(self.opened.role)


async def sales(desk: Desk) -> dict[Digest, Sale]:
    """Every share auction there ever was, oldest first. Raises ChainError."""
    found: dict[Digest, Sale] = {}
    async for event in history.past(desk.chain, (desk.record.share_auctions,)):
        match event:
            case events.AuctionOpened(id=id_):
                found[id_] = Sale(event)
            case events.AuctionSettled(id=id_, clearing_bps=bps):
                found[id_].state, found[id_].bps = "settled", bps
            case events.AuctionVoid(id=id_):
                found[id_].state = "void"
            case _:
                pass
    return found


async def sale(desk: Desk, id_: Digest) -> Sale:
    """Raises BadSettings when nobody opened it."""
    found = (await sales(desk)).get(id_)
    if found is None:
        raise BadSettings(f"There is no share auction {to_hex(id_)}.", hint="List them: lading bid list.")
    return found


def seals(desk: Desk) -> Seals:
    return Seals(desk.settings.home_path / "bids.json")


async def present(desk: Desk) -> int:
    """Unix seconds by the chain's clock, or this machine's where idle blocks lag behind it. Raises ChainError."""
    head = await desk.chain.chain.block()
    return max(int(time.time()), 0 if head is None else head.timestamp)


def phase(calendar: Calendar, epoch: int, now: int) -> str:
    """Where the bidding on `epoch` stands: not begun, sealing, opening or over."""
    if now < calendar.commit_starts(epoch):
        return "not begun"
    if now < calendar.commit_ends(epoch):
        return "sealing"
    return "opening" if now < calendar.start_of(epoch) else "over"


def until(calendar: Calendar, epoch: int, now: int, as_json: bool) -> int | str:
    """The end of the phase that the bidding on `epoch` is in."""
    ends = {
        "not begun": calendar.commit_starts(epoch),
        "sealing": calendar.commit_ends(epoch),
        "opening": calendar.start_of(epoch),
    }
    return context.moment(ends.get(phase(calendar, epoch, now), 0), as_json)


def typed_auction(text: str) -> Digest | Slot:
    """Raises BadSettings."""
    epoch, slash, number = text.partition("/")
    if slash and epoch.isdecimal() and number.isdecimal():
        return Slot(int(epoch), int(number))
    try:
        return digest(text)
    except ValueError:
        raise BadSettings(
            f"{text!r} names no auction.",
            hint="Name a share auction by its 0x id, or a promotion slot by EPOCH/SLOT, such as 12/0: lading bid list.",
        ) from None


def typed_agent(text: str) -> AgentId:
    """Raises BadSettings."""
    try:
        return AgentId(digest(text))
    except ValueError as error:
        raise BadSettings(f"The agent is no digest: {error}.", hint="Write 0x and 64 hexadecimal digits.") from None


def typed_share(text: str) -> int:
    """Basis points of 2.5% or 250bps. Raises BadSettings."""
    number = text.removesuffix("bps").removesuffix("%").strip()
    whole, _, fraction = number.partition(".")
    percent, digits = text.endswith("%"), whole.isdecimal() and (fraction.isdecimal() or not fraction)
    fits = len(fraction) <= 2 if percent else not fraction
    if not (digits and fits and (percent or text.endswith("bps"))):
        raise BadSettings(f"{text!r} is no share.", hint="Write it as 2.5% (two decimals at most) or as 250bps.")
    bps = int(whole) * 100 + int(fraction.ljust(2, "0")) if percent else int(whole)
    if not 0 < bps <= 10_000:
        raise BadSettings(f"A share of {text} cannot be.", hint="It is more than nothing and at most 100%.")
    return bps


def typed_role(text: str) -> int:
    """Raises BadSettings."""
    if text not in _ROLES:
        raise BadSettings(f"There is no role {text!r}.", hint=f"One of {', '.join(_ROLES)}.")
    return _ROLES[text]


def role_name(role: int) -> str:
    return next(name for name, number in _ROLES.items() if number == role)


def share(bps: int, as_json: bool = False) -> Any:
    return bps if as_json else f"{bps / 100:g} %"


def table_words(base: tuple[Party, ...]) -> str:
    """A split table in one line."""
    return ", ".join(f"{party.role.name.lower()} {short(party.payee)} {share(party.bps)}" for party in base)
