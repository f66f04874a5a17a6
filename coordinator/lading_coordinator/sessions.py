"""API keys: who may spend from which deposit, through a session key that this coordinator holds.

A session key is derived from the coordinator's own key, so no secret of it is stored, and of an API key only the hash.
What a session may spend is the chain's word; it is cached, refreshed by events, and outlives an outage of the chain.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable
from types import TracebackType
from typing import Any

import msgspec

from lading.dispatch import Payer
from lading_contracts import events
from lading_contracts.errors import ChainError
from lading_contracts.settlement import Settlement
from lading_coordinator.core.standing import Seat, View, limit_of, refusal_of
from lading_coordinator.errors import ApiError, LedgerFailed
from lading_coordinator.store import Store
from lading_coordinator.workers.place import Place, Role, hash_of
from lading_protocol.eip712 import Domain
from lading_protocol.ids import Address, Wei
from lading_protocol.keys import PrivateKey
from lading_protocol.receipts import SessionConsent

log = logging.getLogger(__name__)
_COLUMNS = "key_hash, nonce, signer, payer, created, view"


class Bounds(msgspec.Struct, frozen=True):
    """Seconds, except for `waiting` (sessions not yet authorized), `each` and `all` (open requests)."""

    activation: float = 3600.0
    fresh: float = 30.0
    patience: float = 0.5
    waiting: int = 10_000
    each: int = 64
    all: int = 2048


class Created(msgspec.Struct, frozen=True):
    """`api_key` is shown here and never again; `consent` lets the payer authorize `session` on chain."""

    api_key: str
    session: Address
    consent: bytes


class Sessions:
    """`clock` gives Unix seconds."""

    def __init__(
        self,
        store: Store,
        settlement: Settlement,
        domain: Domain,
        master: PrivateKey,
        clock: Callable[[], float],
        bounds: Bounds | None = None,
        place: Place | None = None,
    ) -> None:
        self._place = place or Place()
        self._store = store
        self._settlement = settlement
        self._domain = domain
        self._master = master
        self._clock = clock
        self._bounds = bounds or Bounds()
        self._seats: dict[bytes, Seat] = {}
        self._used: dict[str, Seat] = {}  # of keys that came and were right, so that each is hashed once
        self._by_signer: dict[Address, Seat] = {}
        self._asking: dict[Address, asyncio.Task[None]] = {}
        self._busy: dict[Address, int] = {}
        self._total = 0
        self._load()

    # Keys

    def create(self, payer: Address) -> Created:
        """A fresh key for this payer, who must authorize it on chain. Raises ApiError, LedgerFailed."""
        waiting = sum(1 for seat in self._seats.values() if seat.view is None)
        if waiting >= self._bounds.waiting:
            raise ApiError(429, "too_many_sessions", "Too many sessions wait to be authorized.", retry_after=60)
        nonce, api_key = secrets.token_bytes(16), f"lk_{secrets.token_urlsafe(32)}"
        key = self._key(nonce)
        seat = Seat(hash_of(api_key), key, payer, self._clock())
        values = (seat.key_hash, nonce, key.address, payer, seat.created, None)
        self._store.write([("insert into sessions values (?,?,?,?,?,?)", values)])
        self._take(seat)
        consent = SessionConsent(payer).sign(self._domain, key).signature
        return Created(api_key, key.address, consent)

    async def seat(self, api_key: str) -> Seat:
        """Whose key this is, with the chain's view as fresh as it must be. Raises ApiError (401, 503)."""
        if not api_key:
            raise ApiError(
                401,
                "missing_api_key",
                "No API key was given.",
                hint="Send `Authorization: Bearer KEY`; get one with POST /lading/v1/sessions.",
            )
        seat = self._used.get(api_key) or self._looked_up(api_key)
        if seat is None:
            raise ApiError(
                401,
                "invalid_api_key",
                "This API key is not known to this coordinator.",
                hint="Get a new one with POST /lading/v1/sessions.",
            )
        if (asked := self._freshened(seat)) is not None:
            await asyncio.shield(asked)
        return seat

    async def admit(self, api_key: str) -> Payer:
        """Raises ApiError: unknown, not authorized, expired or revoked key."""
        seat = await self.seat(api_key)
        if (refusal := refusal_of(seat, self._clock())) is not None:
            raise refusal
        assert seat.view is not None
        return Payer(seat.key, seat.payer, limit_of(seat.view))

    def working(self, payer: Payer, count: int = 1) -> "_Working":
        """Counts `count` jobs, running or waiting. Raises ApiError (429)."""
        return _Working(self, payer.key.address, count)

    def begin(self, who: Address, count: int) -> None:
        mine = self._busy.get(who, 0)
        if mine + count > self._bounds.each or self._total + count > self._bounds.all:
            whose = "This API key has" if mine + count > self._bounds.each else "The coordinator has"
            raise ApiError(
                429, "overloaded", f"{whose} too many requests open.", hint="Try again after 1 s.", retry_after=1
            )
        self._busy[who] = mine + count
        self._total += count

    def end(self, who: Address, count: int) -> None:
        self._total -= count
        left = self._busy.pop(who) - count
        if left:
            self._busy[who] = left

    def signs(self, signer: Address) -> bool:
        """Whether this process signs for the session."""
        seat = self._by_signer.get(signer)
        return seat is not None and self._place.owns(seat.key_hash)

    # The chain

    def notice(self, event: events.Event) -> None:
        """Something happened on chain: what depends on it is asked again before its next use."""
        match event:
            case events.Authorized() | events.Revoked():
                seat = self._by_signer.get(event.key)
                if seat is not None:
                    seat.dirty = True
            case events.Locked() | events.Closed():
                # Frequent, and mostly our own locks, which the purse knows of already: look again behind the answer.
                seat = self._by_signer.get(event.signer)
                if seat is not None:
                    seat.checked_at = min(seat.checked_at, self._clock() - self._bounds.fresh)
            case events.Deposited() | events.ExitRequested() | events.Exited():
                for seat in self._seats.values():
                    seat.dirty = seat.dirty or seat.payer == event.payer
            case _:
                pass

    def prune(self) -> None:
        """Forget keys that were never authorized in time."""
        oldest = self._clock() - self._bounds.activation
        dead = [seat for seat in self._seats.values() if seat.view is None and seat.created < oldest]
        if dead:
            gone = "delete from sessions where key_hash=? and view is null"  # another process may have seen it
            self._store.write([(gone, (seat.key_hash,)) for seat in dead])
        for seat in dead:
            del self._seats[seat.key_hash], self._by_signer[seat.key.address]
        if dead:
            self._used = {api_key: seat for api_key, seat in self._used.items() if seat.key_hash in self._seats}

    def _freshened(self, seat: Seat) -> "asyncio.Task[None] | None":
        """What to wait for where the chain's answer decides; a view that is merely old is renewed behind the answer."""
        now = self._clock()
        age = now - seat.checked_at
        if (seat.dirty or refusal_of(seat, now) is not None) and (age >= self._bounds.patience or seat.checked_at == 0):
            return self._ask(seat)
        if age >= self._bounds.fresh:
            self._ask(seat)
        return None

    def _ask(self, seat: Seat) -> asyncio.Task[None]:
        who = seat.key.address
        task = self._asking.get(who)
        if task is None:
            task = self._asking[who] = asyncio.ensure_future(self._refresh(seat))
            task.add_done_callback(lambda _: self._asking.pop(who, None))
        return task

    async def _refresh(self, seat: Seat) -> None:
        seat.dirty = False
        try:
            session = await self._settlement.session(seat.key.address)
            if session is not None:
                account = await self._settlement.account(seat.payer)
                free = Wei(max(account.free - account.exit_amount, 0))
                self._keep(seat, View(session.payer, session.cap, session.locked, session.expiry, free))
        except (ChainError, LedgerFailed) as error:
            seat.dirty = True
            if seat.view is None:
                log.info("A session cannot be checked: %s", error)
        finally:
            seat.checked_at = self._clock()

    def _keep(self, seat: Seat, view: View) -> None:
        if view != seat.view:
            seat.view = view
            text = f"{view.payer.hex()} {view.cap} {view.locked} {view.expiry} {view.free}"
            self._store.write([("update sessions set view=? where key_hash=?", (text, seat.key_hash))])

    # At rest

    def _load(self) -> None:
        rows = self._store.rows(f"select {_COLUMNS} from sessions")
        lost = sum(self._take_row(row) is None for row in rows)
        if lost:
            log.error("%d API keys were of another coordinator key and are refused: start it with that one", lost)

    def _looked_up(self, api_key: str) -> Seat | None:
        name = hash_of(api_key)
        seat = self._seats.get(name) or self._made_elsewhere(name)
        if seat is not None:
            self._used[api_key] = seat
        return seat

    def _made_elsewhere(self, key_hash: bytes) -> Seat | None:
        """A key that another process of this coordinator made since we began."""
        if self._place.role is Role.WHOLE:
            return None
        row = self._store.row(f"select {_COLUMNS} from sessions where key_hash=?", (key_hash,))
        return self._take_row(row) if row else None

    def _take_row(self, row: tuple[Any, ...]) -> Seat | None:
        """None for a session whose key this coordinator's key does not give: nobody authorized what it would sign."""
        key_hash, nonce, signer, payer, created, view = row
        seat = Seat(key_hash, self._key(nonce), Address(payer), created)
        if seat.key.address != signer:
            return None
        seat.view = _read_view(view) if view else None
        self._take(seat)
        return seat

    def _take(self, seat: Seat) -> None:
        self._seats[seat.key_hash] = seat
        self._by_signer[seat.key.address] = seat

    def _key(self, nonce: bytes) -> PrivateKey:
        return self._master.child(f"lading/session/{nonce.hex()}")


class _Working:
    """Around jobs, which count for their session as long as they run or wait."""

    __slots__ = ("_count", "_sessions", "_who")

    def __init__(self, sessions: Sessions, who: Address, count: int) -> None:
        self._sessions = sessions
        self._who = who
        self._count = count

    def __enter__(self) -> None:
        self._sessions.begin(self._who, self._count)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sessions.end(self._who, self._count)


def _read_view(text: str) -> View:
    payer, cap, locked, expiry, free = text.split()
    return View(Address(bytes.fromhex(payer)), Wei(int(cap)), Wei(int(locked)), int(expiry), Wei(int(free)))
