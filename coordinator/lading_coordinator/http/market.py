"""What the market page shows, as plain trees, the same for JSON. Addresses and ids are 0x-hex, wei are text."""

from typing import Any

from lading_contracts.epochs import Calendar
from lading_contracts.registry import Role
from lading_coordinator.core.market import Lease, Payment, Promotion, ShareAuction, Table, newest, phase
from lading_coordinator.http.views import Tree, Views
from lading_protocol.ids import to_hex

SHOWN = 50
_HOSTS = "host"


class MarketViews:
    def __init__(self, views: Views) -> None:
        self._views = views

    def tree(self, count: int = SHOWN) -> Tree:
        """Newest first, `count` of each kind at most. Nothing but `caught_up` while the calendar is not known."""
        watch, now = self._views.parts.market, self._views.parts.clock()
        board, calendar = watch.board, watch.calendar
        if calendar is None:
            return {"caught_up": False}
        epoch = calendar.epoch_at(int(now))
        return {
            "caught_up": watch.caught_up,
            "epoch": epoch,
            "epoch_ends": calendar.start_of(epoch + 1),
            "promoted": [to_hex(agent) for agent in board.promoted(epoch)],
            "auctions": [self._auction(one, calendar, now) for one in newest(board.auctions.values(), count)],
            "promotions": [self._promotion(one, calendar, now) for one in newest(board.promotions.values(), count)],
            "tables": [self._table(one, now) for one in newest(board.tables.values(), count)],
            "leases": [self._lease(one) for one in newest(board.leases.values(), count)],
            "settlements": [self._payment(one) for one in newest(board.payments, count)],
        }

    def _auction(self, one: ShareAuction, calendar: Calendar, now: float) -> Tree:
        state = phase(calendar, one.epoch, now) if one.state == "open" else one.state
        return {
            "id": to_hex(one.id),
            "agent": to_hex(one.agent),
            "name": self._views.name(one.agent),
            "epoch": one.epoch,
            "role": _HOSTS if one.role == 0 else Role(one.role).name.lower(),
            "seats": one.seats,
            "reserve_bps": one.reserve_bps,
            "deposit": self._views.coins(one.deposit),
            "sealed": one.sealed,
            "opened": [{"bidder": to_hex(bidder), "bps": bps} for bidder, bps in one.opened],
            "state": "to settle" if state == "over" else state,
            "until": calendar.commit_ends(one.epoch) if state == "sealing" else calendar.start_of(one.epoch),
            "bps": one.bps,
            "winners": [to_hex(winner) for winner in one.winners],
            "terms": to_hex(one.terms) if one.terms else "",
        }

    def _promotion(self, one: Promotion, calendar: Calendar, now: float) -> Tree:
        state = "settled" if one.settled else phase(calendar, one.epoch, now)
        return {
            "epoch": one.epoch,
            "slot": one.slot,
            "sealed": one.sealed,
            "opened": one.opened,
            "state": "to settle" if state == "over" else state,
            "agent": to_hex(one.agent) if one.agent else "",
            "name": self._views.name(one.agent) if one.agent else "",
            "winner": to_hex(one.winner) if one.winner else "",
            "price": self._views.coins(one.price),
        }

    def _table(self, one: Table, now: float) -> Tree:
        return {
            "terms": to_hex(one.terms),
            "agent": to_hex(one.agent),
            "name": self._views.name(one.agent),
            "parties": [
                {"payee": to_hex(party.payee), "role": Role(party.role).name.lower(), "bps": party.bps}
                for party in one.parties
            ],
            "host_bps": one.host_bps,
            "state": "sunset" if one.sunset and one.sunset <= now else "sunsets" if one.sunset else "open",
            "sunset": one.sunset,
            "gross": self._views.coins(one.gross),
            "royalty": self._views.coins(one.royalty),
            "claimed": self._views.coins(one.claimed),
        }

    def _lease(self, one: Lease) -> Tree:
        return {
            "id": to_hex(one.id),
            "tenant": to_hex(one.tenant),
            "host": to_hex(one.host),
            "agent": to_hex(one.agent),
            "name": self._views.name(one.agent),
            "slots": one.slots,
            "start": one.start,
            "duration": one.duration,
            "served": one.served,
            "rate": self._views.coins(one.rate),
            "state": one.state,
            "penalty": self._views.coins(one.penalty),
        }

    def _payment(self, one: Payment) -> dict[str, Any]:
        return {
            "block": one.block,
            "tx": to_hex(one.tx),
            "host": to_hex(one.host),
            "terms": to_hex(one.terms),
            "vouchers": one.rows,
            "host_amount": self._views.coins(one.host_amount),
            "royalty": self._views.coins(one.royalty),
        }
