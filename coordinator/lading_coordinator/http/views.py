"""What the control plane shows: plain trees made from the coordinator's parts, the same for JSON and for the page.

Addresses and ids are 0x-hex, wei are strings, amounts in tokens stand beside them.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from lading.clockwatch import Clockwatch
from lading.core.index import HostState
from lading.dispatch import Directory, Purse
from lading_contracts.deployment import Deployment
from lading_coordinator.chainwatch import ChainWatch
from lading_coordinator.core.catalogue import Catalogue
from lading_coordinator.core.standing import Seat, limit_of, refusal_of
from lading_coordinator.errors import ApiError
from lading_coordinator.gateway.openai import Gateway
from lading_coordinator.http.audits import AuditParts, AuditViews
from lading_coordinator.ledger import JobRow, Ledger, PartRow
from lading_coordinator.marketwatch import MarketWatch
from lading_coordinator.regions.view import RegionView
from lading_coordinator.sessions import Sessions
from lading_protocol.ids import Address, AgentId, Wei, to_hex
from lading_protocol.messages import CoordinatorDetail
from lading_protocol.pricing import format_amount
from lading_protocol.receipts import Finish

BEAT_SECONDS = 5.0
Tree = dict[str, Any]


class Parts(msgspec.Struct, frozen=True):
    """What the control plane may look at."""

    gateway: Gateway
    sessions: Sessions
    ledger: Ledger
    audits: AuditParts
    directory: Directory
    catalogue: Catalogue
    purse: Purse
    watch: ChainWatch
    market: MarketWatch
    deployment: Deployment
    detail: Callable[[], CoordinatorDetail]
    address: Address
    chain_url: str
    clock: Callable[[], float]
    clockwatch: Clockwatch
    metrics_text: Callable[[], Awaitable[bytes]]
    regions: RegionView


class Views:
    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def coins(self, amount: int) -> Tree:
        return {"wei": str(amount), "amount": self.shown(amount)}

    def shown(self, amount: int) -> str:
        return format_amount(amount, self.parts.deployment.decimals)

    def network(self) -> Tree:
        parts, detail = self.parts, self.parts.detail()
        record = msgspec.json.decode(parts.deployment.encode())
        return {
            "deployment": record,
            "chain_id": parts.deployment.chain_id,
            "chain_url": parts.chain_url,
            "endpoints": list(detail.endpoints),
            "coordinator": {
                "address": to_hex(parts.address),
                "http": detail.http,
                "program": detail.program,
            },
        }

    def session(self, seat: Seat) -> Tree:
        view, parts = seat.view, self.parts
        refusal = refusal_of(seat, parts.clock())
        held = parts.purse.channels(seat.key.address)
        # Added up here: the purse's own sum is of the process that signs.
        locked = sum(
            channel.locked
            for key, channel in held
            if key.epoch == parts.purse.epoch(seat.key.address, key.host, key.terms)
        )
        channels = [
            {
                "host": to_hex(key.host),
                "terms": to_hex(key.terms),
                "epoch": key.epoch,
                "promised": self.coins(channel.cumulative),
                "locked": self.coins(channel.locked),
            }
            for key, channel in held
        ]
        chain = None
        if view is not None:
            chain = {
                "cap": self.coins(view.cap),
                "locked": self.coins(view.locked),
                "free": self.coins(view.free),
                "spendable": self.coins(max(limit_of(view) - locked, 0)),
                "expiry": view.expiry,
            }
        return {
            "session": to_hex(seat.key.address),
            "payer": to_hex(seat.payer),
            "state": "active" if refusal is None else refusal.code,
            "hint": "" if refusal is None else refusal.hint,
            "chain": chain,
            "spent": self.coins(sum(channel.cumulative for _, channel in held)),
            "channels": channels,
        }

    async def job(self, job: bytes, *, receipts: bool = True) -> Tree:
        """Raises ApiError (404)."""
        row = await self.parts.ledger.job(job) or self.parts.audits.canaries.job(job)
        if row is None:
            raise ApiError(
                404, "unknown_job", f"No job {to_hex(job)} is on record here.", hint="Records are kept for some months."
            )
        tree = self._job(row)
        tree["parts"] = [
            {
                "attempt": part.attempt,
                "host": to_hex(part.host),
                "first": part.first,
                "tokens": part.tokens,
                "cost": self.coins(part.amount),
            }
            | (_signed(part) if receipts else {})
            for part in row.parts
        ]
        return tree

    def _job(self, row: JobRow) -> Tree:
        return {
            "job": to_hex(row.job),
            "agent": to_hex(row.agent),
            "session": to_hex(row.signer),
            "finish": Finish(row.finish).name.lower(),
            "prompt_tokens": row.prompt_tokens,
            "output_tokens": row.output_tokens,
            "cost": self.coins(row.cost),
            "ended": int(row.ended),
        }

    def recent_jobs(self, count: int) -> list[Tree]:
        return [self._job(row) | {"name": self.name(row.agent)} for row in self.parts.ledger.recent(count)]

    def agents(self) -> list[Tree]:
        models = self.parts.gateway.models
        return [models.tree(entry) for entry in models.entries()]

    def hosts(self) -> list[Tree]:
        parts, now, earned = self.parts, self.parts.clock(), self.parts.ledger.earned()
        offers: dict[Address, list[str]] = {}
        for known in parts.directory.offers():
            offers.setdefault(known.host, []).append(self.name(known.agent) or known.detail.name)
        trees, suspects = [], parts.audits.conduct.suspects()
        for host, state in sorted(parts.directory.hosts().items()):
            alive = _alive(state, now)
            tokens, amount = earned.get(host, (0, Wei(0)))
            shunned = f"failed {state.failures} times" if state.shunned_until > now else ""
            trees.append(
                {
                    "host": to_hex(host),
                    "agents": sorted(offers.get(host, [])),
                    "state": state.barred
                    or shunned
                    or (("quoted" if state.quoted else "ready") if alive else "not linked"),
                    "chosen": _chosen(state, now),
                    "suspect": suspects.get(host, ""),
                    "running": state.busy,
                    "free": state.free,
                    "waiting": state.waiting,
                    "failures": state.failures,
                    "tokens": tokens,
                    "earned": self.coins(amount),
                }
            )
        return trees

    def audits(self, count: int) -> Tree:
        return AuditViews(self).listing(count)

    def health(self) -> Tree:
        """What is wrong though the process answers: `clock` is there when it seems to be."""
        clock = self.parts.clockwatch.words
        return {"status": "ok"} | ({"clock": clock} if clock else {})

    def ready(self) -> Tree:
        parts, now = self.parts, self.parts.clock()
        # Not from hosts(), which goes through the ledger: this is asked often.
        hosts = sum(_chosen(state, now) for state in parts.directory.hosts().values())
        agents, elsewhere = len(self.parts.catalogue.entries()), self.parts.regions.summed_up
        return {"chain": bool(self.parts.watch.up), "hosts": hosts, "agents": agents, "elsewhere": elsewhere}

    def name(self, agent: bytes) -> str:
        entry = self.parts.catalogue.get(AgentId(agent))
        return f"{entry.name}@{entry.version}" if entry is not None else ""


def _alive(state: HostState, now: float) -> bool:
    return state.beat_at is not None and now - state.beat_at <= BEAT_SECONDS


def _chosen(state: HostState, now: float) -> bool:
    """Whether it gets jobs."""
    return _alive(state, now) and not state.barred and state.shunned_until <= now


def _signed(part: PartRow) -> Tree:
    if not part.receipt:
        return {"receipt": None}
    return {"receipt": to_hex(part.receipt), "marks": to_hex(part.marks)}
