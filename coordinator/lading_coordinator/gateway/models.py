"""Which agents can be asked now: GET /v1/models, and the agent behind a request's `model`."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from lading.core.atlas import Atlas, Shelf
from lading.core.matching import BEAT_LIMIT
from lading.dispatch import Directory
from lading_coordinator.core.catalogue import Catalogue, Entry, by_promotion, model_tree
from lading_coordinator.errors import ApiError
from lading_coordinator.gateway.connection import Request
from lading_coordinator.gateway.reply import Reply
from lading_protocol.ids import AgentId
from lading_protocol.offers import KnownOffer

PLACES = {"chat": "/v1/chat/completions", "embed": "/v1/embeddings"}
CALL_PLACE = "/lading/v1/call"
# For so long a release without a host stays the one that is meant, where another has one.
MEANT_SECONDS = 0.1
MOST_MEANT = 1024
_encode = msgspec.json.Encoder().encode


class Terms(msgspec.Struct, frozen=True):
    """What the gateway grants and prints. `default_tokens` bounds an answer whose request sets no bound, `gateways` are
    other addresses at which the same API keys are good. `region` is where consumers are who do not say it."""

    default_tokens: int = 512
    decimals: int = 18
    symbol: str = "LADE"
    gateways: tuple[str, ...] = ()
    region: str = ""


class Models:
    """`clock` gives Unix seconds, `promoted` the agents that are shown first. `atlas` knows what others have."""

    def __init__(
        self,
        catalogue: Catalogue,
        directory: Directory,
        clock: Callable[[], float],
        terms: Terms,
        promoted: Callable[[], Sequence[AgentId]] = tuple,
        atlas: Atlas | None = None,
    ) -> None:
        self._atlas = atlas
        self._catalogue = catalogue
        self._directory = directory
        self._clock = clock
        self._terms = terms
        self._promoted = promoted
        self._resolved: dict[str, tuple[Entry, int, float]] = {}

    async def show_all(self, request: Request, reply: Reply) -> None:
        """GET /v1/models"""
        trees = map(self.tree, self.entries())
        data = [tree for tree in trees if tree["hosts"] or tree["hosts_elsewhere"]]
        reply.send(200, _encode({"object": "list", "data": data}))

    async def show(self, request: Request, reply: Reply, name: str) -> None:
        """GET /v1/models/{id}"""
        entry = self._resolve(name)
        reply.send(200, _encode(self.tree(entry) | {"id": name}))

    def entries(self) -> list[Entry]:
        """Every agent of the catalogue, promoted ones first."""
        return by_promotion(self._catalogue.entries(), self._promoted())

    def tree(self, entry: Entry) -> dict[str, Any]:
        live, paid = self.live(entry.agent), entry.agent in self._promoted()
        elsewhere, terms = self._elsewhere(entry.agent), self._terms
        tree = model_tree(entry, live, terms.decimals, terms.symbol, promoted=paid, elsewhere=elsewhere)
        return tree | {"current": self._catalogue.is_current(entry)}

    def _elsewhere(self, agent: AgentId) -> list[Shelf]:
        return [] if self._atlas is None else self._atlas.shelves(agent, self._clock())

    def live(self, agent: AgentId) -> list[KnownOffer]:
        """The offers of an agent whose hosts could be chosen now."""
        now = self._clock()
        return [
            one.offer
            for one in self._directory.candidates(agent)
            if not one.barred
            and one.beat_at is not None
            and now - one.beat_at <= BEAT_LIMIT
            and one.offer.offer.expires > now
        ]

    def _meant(self, model: str) -> Entry:
        """What a name meant a moment ago it means still, unless the catalogue has changed."""
        now, version = self._clock(), self._catalogue.version
        found = self._resolved.get(model)
        if found is None or found[1] != version or not 0 <= now - found[2] < MEANT_SECONDS:
            if len(self._resolved) >= MOST_MEANT:
                self._resolved.clear()
            found = self._resolved[model] = (self._resolve(model), version, now)
        return found[0]

    def alive(self, agent: AgentId) -> bool:
        return self._directory.serves(agent, self._clock())

    def _resolve(self, model: str) -> Entry:
        """Of a name's releases one that has hosts here; what others say they have counts only where none has, as a lie
        would lead to a release that nobody serves. Raises ApiError (404)."""
        entry, atlas, now = self._catalogue.resolve(model, self.alive), self._atlas, self._clock()
        if atlas is None or self.alive(entry.agent):
            return entry
        return self._catalogue.resolve(model, lambda agent: atlas.serves(agent, now))

    def entry(self, model: str, operation: str) -> Entry:
        entry = self._meant(model)
        if operation not in entry.operations:
            done = [f"{name} at {PLACES.get(name, CALL_PLACE)}" for name in entry.operations]
            raise ApiError(
                400,
                "unsupported_operation",
                f"The model {model!r} does not do {operation[:64]!r}.",
                param="model",
                hint=f"It does {', '.join(done)}.",
            )
        return entry
