"""Models on a graphics card for the audit benchmark: opened by the node's own engine, then altered as a cheat would.

They take and give numbers on the processor, so that audit_hosts serve with them as they do with any other.
"""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
import torch

from lading_node.engines.model import LanguageModel
from lading_node.engines.port import EngineSpec

from . import audit_cases as cases
from . import audit_hosts as hosts
from . import audit_models as models
from .audit_cases import PLAIN, Stage
from .audit_hosts import Host, Job, Served
from .audit_models import Watched

# What a host serves in instead, whether it saves by it or not.
SWAPPED = {"f32": ("bf16", "f16"), "bf16": ("f16",), "f16": ("bf16",)}


class OnCard:
    """A model of the library, on `device`, between two that know of no device."""

    def __init__(self, inner: Any, device: str) -> None:
        self.inner = inner
        self._device = device

    def model(self, ids: torch.Tensor, **given: Any) -> SimpleNamespace:
        moved = {name: value.to(self._device) if torch.is_tensor(value) else value for name, value in given.items()}
        made = self.inner.model(ids.to(self._device), **moved)
        return SimpleNamespace(last_hidden_state=made.last_hidden_state.cpu())

    def lm_head(self, states: torch.Tensor) -> torch.Tensor:
        rows: torch.Tensor = self.inner.lm_head(states.to(self._device))
        return rows.cpu()


def opened(spec: EngineSpec, precision: str, device: str) -> LanguageModel:
    """By the torch engine; its answers do not end by themselves."""
    model = models.opened(msgspec.structs.replace(spec, device=device != "cpu"), precision)
    models.never_end(models.inner(model))
    models.inner(model).to(device)
    return model


def stage(spec: EngineSpec, precision: str, device: str) -> Stage:
    """The true model as a host on the card and as an auditor there."""
    model = opened(spec, precision, device)
    host = OnCard(models.own_copy(model), device)
    return Stage(Watched(model), host, None, None, models.tokenizer(), model, precision == "f32")


class Card(NamedTuple):
    """What a cheat starts from: the package, and where it computes."""

    spec: EngineSpec
    precision: str
    device: str


Serve = Callable[[Stage, Sequence[Job]], list[Served]]


class Honest(NamedTuple):
    """A set-up of a known-good host, and its part of all honest jobs."""

    name: str
    serve: Serve
    part: float


def _kernel(stage: Stage, asked: Sequence[Job]) -> list[Served]:
    made = OnCard(copy.deepcopy(stage.model.inner), stage.model._device)
    made.inner.set_attn_implementation("eager")
    return Host(made).serve(asked)


def streams(count: int) -> Serve:
    """Through the engine's own passes, `count` at once."""
    return lambda stage, asked: hosts.by_engine_together(stage.engine, asked, count)


HONEST = (
    Honest("batches of 50, padded", lambda stage, asked: Host(stage.model).serve(asked), 0.28),
    Honest("batches of 16, padded", lambda stage, asked: Host(stage.model, batch=16).serve(asked), 0.1),
    Honest("batches of 4, padded", lambda stage, asked: Host(stage.model, batch=4).serve(asked), 0.04),
    Honest("drafted, blocks of 8", cases._blocks(8), 0.08),
    Honest("one prefill", cases._blocks(hosts.TOKENS), 0.08),
    Honest("another attention kernel", _kernel, 0.06),
    Honest("by the engine, one at a time", cases._engine, 0.04),
    Honest("by the engine, 4 streams", streams(4), 0.08),
    Honest("by the engine, 16 streams", streams(16), 0.24),
)


class Cheat(NamedTuple):
    """See audit_cases.Case."""

    name: str
    serve: Serve
    asked: dict[str, float] = PLAIN
    sampling: bool = False


def cheats(card: Card) -> tuple[Cheat, ...]:
    others = [other for other in SWAPPED[card.precision] if _can(card, other)]
    found = [Cheat(f"{other} for {card.precision}", _served_in(card, other)) for other in others]
    for name, how in (("int8", models.int8), ("fp8", models.fp8), ("int4", models.int4)):
        found.append(Cheat(name, _altered(lambda inner, how=how: models.quantised(inner, how))))
    found.append(Cheat("KV int4", lambda stage, asked: Host(stage.model, stored=hosts.int4_rows).serve(asked)))
    found.append(Cheat("skipped layer", _altered(models.skipped)))
    known = {case.name: case for case in cases.CHEATS}
    for name in ("wrong seed", "temperature 0.9 for 1", "top-k 20 ignored"):
        found.append(Cheat(name, known[name].serve, known[name].asked, sampling=True))
    return tuple(found)


def _can(card: Card, precision: str) -> bool:
    return precision != "f16" or card.device != "cpu"


def _served_in(card: Card, precision: str) -> Serve:
    def serve(stage: Stage, asked: Sequence[Job]) -> list[Served]:
        model = opened(card.spec, precision, card.device)
        return Host(OnCard(models.own_copy(model), card.device)).serve(asked)

    return serve


def _altered(how: Callable[[Any], Any]) -> Serve:
    return lambda stage, asked: Host(OnCard(how(stage.model.inner), stage.model._device)).serve(asked)


def chat(folder: Path) -> EngineSpec:
    """The committed chat model as the torch engine reads it, laid out in `folder`."""
    return models.specs(folder)["chat"]
