"""Which agents have which names, and what `GET /v1/models` says of them.

A name belongs to the publisher that brought it here first; a digest always names exactly one agent. Pure.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from lading.core.atlas import Shelf
from lading_coordinator.errors import ApiError
from lading_protocol.audit import assurance
from lading_protocol.ids import Address, AgentId, Wei, from_hex, to_hex
from lading_protocol.offers import KnownOffer
from lading_protocol.pricing import Price, format_amount


class Entry(msgspec.Struct, frozen=True):
    """An agent whose manifest and registration were checked. `registered_at` is Unix seconds, from the chain, `spec`
    the hash of what it computes (calibration.spec_hash)."""

    agent: AgentId
    name: str
    version: str
    publisher: Address
    operations: tuple[str, ...]
    context: int
    registered_at: int
    summary: str = ""
    licence: str = ""
    width: int | None = None
    spec: bytes = b""


LATEST = "latest"


class Catalogue:
    """The entries by digest, name and name@version. `is_current` says which of a name its publisher points to."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._by_agent: dict[AgentId, Entry] = {}
        self._by_name: dict[str, list[Entry]] = {}
        self._withdrawn: dict[AgentId, str] = {}
        self.version = 0  # grows with every change
        self.is_current: Callable[[Entry], bool] = lambda entry: False
        for entry in entries:
            self.add(entry)

    def add(self, entry: Entry) -> None:
        if entry.agent in self._by_agent:
            return
        self._by_agent[entry.agent] = entry
        self.version += 1
        named = self._by_name.setdefault(entry.name, [])
        named.append(entry)
        named.sort(key=lambda one: (one.registered_at, one.agent))

    def withdraw(self, agent: AgentId, reason: str) -> None:
        """Its publisher took it back: it is listed and resolved no more, and only its name is still told."""
        self._withdrawn[agent] = reason
        self.version += 1

    def get(self, agent: AgentId) -> Entry | None:
        return self._by_agent.get(agent)

    def entries(self) -> list[Entry]:
        """Those that may be asked."""
        held = (entry for entry in self._by_agent.values() if entry.agent not in self._withdrawn)
        return sorted(held, key=lambda entry: (entry.name, -entry.registered_at))

    def resolve(self, model: str, alive: Callable[[AgentId], bool]) -> Entry:
        """The agent that a `model` means: for a bare name the release that its publisher points to when it has an
        offer, else the newest one that has; `name@latest` is what is pointed to. Raises ApiError (404)."""
        candidates = self._candidates(model)
        if not candidates:
            raise unknown_model(model, sorted(self._by_name))
        offered = [entry for entry in candidates if entry.agent not in self._withdrawn]
        if not offered:
            raise withdrawn_model(model, self._withdrawn[candidates[-1].agent])
        version = model.partition("@")[2]
        current = [entry for entry in offered if self.is_current(entry)] if version in ("", LATEST) else []
        if version == LATEST and current:
            return current[-1]
        for entry in (*reversed(current), *reversed(offered)):
            if alive(entry.agent):
                return entry
        return (current or offered)[-1]

    def _candidates(self, model: str) -> list[Entry]:
        """Oldest first."""
        if model.startswith("0x"):
            found = self._by_digest(model)
            return [found] if found else []
        name, _, version = model.partition("@")
        exact = [entry for entry in self._owned(name) if entry.version == version]
        return exact if version and (exact or version != LATEST) else self._owned(name)

    def _owned(self, name: str) -> list[Entry]:
        named = self._by_name.get(name, [])
        return [entry for entry in named if entry.publisher == named[0].publisher]

    def _by_digest(self, text: str) -> Entry | None:
        try:
            return self._by_agent.get(AgentId(from_hex(text.lower(), 32)))
        except ValueError:
            return None


def unknown_model(model: str, names: Sequence[str]) -> ApiError:
    offered = f"Known here: {', '.join(names[:8])}." if names else "No agent is published here yet."
    return ApiError(
        404,
        "model_not_found",
        f"The model {model[:100]!r} does not exist on this coordinator.",
        param="model",
        hint=f"{offered} See GET /v1/models; a name, name@version and the 0x digest all work.",
    )


def withdrawn_model(model: str, reason: str) -> ApiError:
    return ApiError(
        404,
        "model_not_found",
        f"The model {model[:100]!r} was withdrawn by its publisher: {reason.rstrip('.')}.",
        param="model",
        hint="See GET /v1/models for what is offered.",
    )


def by_promotion(entries: Iterable[Entry], promoted: Sequence[AgentId]) -> list[Entry]:
    """The promoted agents first, in the order of their slots; the others stay as they were."""
    place = {agent: at for at, agent in enumerate(promoted)}
    return sorted(entries, key=lambda entry: place.get(entry.agent, len(place)))


def model_tree(
    entry: Entry,
    offers: Sequence[KnownOffer],
    decimals: int,
    symbol: str,
    *,
    promoted: bool = False,
    elsewhere: Sequence[Shelf] = (),
) -> dict[str, Any]:
    """OpenAI's model object plus prices per 1,000 tokens (those of the cheapest offer). `offers` are the live ones.

    `promoted` says that the agent's place in a list was paid for, in an auction on the chain. `elsewhere` is what other
    coordinators say they have; their price is shown where none is known here.
    """
    known = [one.price for one in offers] or [
        Price(Wei(shelf.corners[at]), Wei(shelf.corners[at + 1]))
        for shelf in elsewhere
        for at in range(0, len(shelf.corners), 2)
    ]
    best = min(known, key=lambda price: price.input + price.output, default=None)
    price = None
    if best is not None:
        price = {
            "unit": "1000 tokens",
            "symbol": symbol,
            "input": format_amount(best.input, decimals),
            "output": format_amount(best.output, decimals),
            "input_wei": str(best.input),
            "output_wei": str(best.output),
        }
    return {
        "id": entry.name,
        "object": "model",
        "created": entry.registered_at,
        "owned_by": to_hex(entry.publisher),
        "agent": to_hex(entry.agent),
        "version": entry.version,
        "summary": entry.summary,
        "licence": entry.licence,
        "operations": list(entry.operations),
        "context": entry.context,
        "width": entry.width,
        "hosts": len({known.host for known in offers}),
        "hosts_elsewhere": sum(shelf.hosts for shelf in elsewhere),
        "devices": sorted({known.detail.device for known in offers} - {""}),
        "assurance": sorted({assurance(known.detail.numeric) for known in offers}),
        "price": price,
        "promoted": promoted,
    }
