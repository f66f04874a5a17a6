"""One true model at one precision against every host: what is measured, judged, kept and said of it."""

import gc
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import onnx
import torch
from onnx import numpy_helper

from integration.engines import chat_agents
from lading_node.engines.load import language_model
from lading_node.engines.model import LanguageModel

from . import audit_cases as cases
from . import audit_models as models
from . import audit_toploc as toploc
from .audit_cases import Case, Seen, Stage
from .audit_hosts import Host, Job, Served
from .audit_models import Watched
from .audit_results import Limits, Rates, limits, rates


class Size(NamedTuple):
    """Jobs of one case: of a cheat, of an honest set-up, and of a set-up while calibrating."""

    cheat: int
    honest: int
    calibrate: int


FULL, QUICK = Size(200, 100, 60), Size(20, 10, 30)


class Result(msgspec.Struct, frozen=True):
    """One case in one configuration. `wide` are the rates by a table over all classes of kernels, `narrow` by one of
    the auditor's own class. `changed` is the share of jobs whose tokens are not those of an honest host; `caught` the
    share of those that are guilty by the wide table."""

    model: str
    precision: str
    case: str
    kind: str  # "honest", "plain", "forged", "other kernels"
    jobs: int
    wide: Rates
    narrow: Rates
    changed: float | None = None
    caught: float | None = None


class Outcome(msgspec.Struct, frozen=True):
    """A configuration's results, and the honest numbers that its limits come from."""

    wide: Limits
    narrow: Limits
    results: tuple[Result, ...]


def stage(model: str, precision: str, folder: Path) -> Stage:
    specs = models.specs(folder)
    opened = {name: models.opened(spec, precision) for name, spec in specs.items()}
    other = "second" if model == "chat" else "chat"
    engine = _engine(precision, folder / "onnx") if model == "chat" else None
    if model == "chat":
        for one in opened.values():
            models.never_end(models.inner(one))
    kept = {name: models.own_copy(one) for name, one in opened.items()}
    true, exact = Watched(opened[model]), precision == "f32"
    return Stage(true, kept[model], kept[other], kept["small"], models.tokenizer(), engine, exact)


def _engine(precision: str, folder: Path) -> LanguageModel:
    """The chat model in its other engine, its weights rounded as they are at `precision`."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = chat_agents.onnx_chat()
    if precision == "bf16":
        graph = onnx.load(chat_agents.MODEL / "model.onnx")
        for tensor in graph.graph.initializer:
            value = numpy_helper.to_array(tensor)
            if value.dtype == np.float32 and "cache" not in tensor.name:
                rounded = torch.from_numpy(value.copy()).bfloat16().float().numpy()
                tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
        (folder / "model.onnx").write_bytes(graph.SerializeToString(deterministic=True))
        spec = msgspec.structs.replace(spec, files=(models._file(folder / "model.onnx", "model"), *spec.files[1:]))
    with tempfile.TemporaryDirectory() as scratch:
        return language_model(spec, Path(scratch))


def measure(stage: Stage, case: Case, count: int, salt: str) -> list[Seen]:
    count = count * 2 // 5 if case.slow and not stage.exact else count
    print(f"{time.strftime('%H:%M:%S')} {salt}, {case.name}: {count} jobs", file=sys.stderr, flush=True)
    asked = cases.jobs(stage, count, salt, case.asked)
    served = case.serve(stage, asked)
    found = [cases.examine(stage, job, one) for job, one in zip(asked, served, strict=True)]
    gc.collect()
    return found


def run(model: str, precision: str, size: Size, folder: Path) -> Outcome:
    here = stage(model, precision, folder)
    other = (*cases.OTHER_KERNELS, *((cases.ENGINE,) if here.engine else ()))
    own = [one for case in cases.SAME_KERNELS for one in measure(here, case, size.calibrate, f"calibrate {case.name}")]
    more = [one for case in other for one in measure(here, case, size.calibrate, f"calibrate {case.name}")]
    wide, narrow = limits([*own, *more], here.exact), limits(own, here.exact)
    results = []

    def add(case: Case, kind: str, seen: Sequence[Seen], base: Sequence[Seen] = ()) -> None:
        by = [rates(seen, each, toploc.PUBLISHED[precision]) for each in (wide, narrow)]
        changed, caught = _changed(seen, base, wide) if base else (None, None)
        results.append(Result(model, precision, case.name, kind, len(seen), by[0], by[1], changed, caught))

    for case in cases.SAME_KERNELS:
        add(case, "honest", measure(here, case, size.honest, f"honest {case.name}"))
    for case in other:
        add(case, "other kernels", measure(here, case, size.honest, f"honest {case.name}"))
    truths: dict[str, list[Seen]] = {}
    for case in cases.CHEATS:
        seen = measure(here, case, size.cheat, "cheat")
        key = str(case.asked)
        if key not in truths:
            truths[key] = measure(here, Case("honest", _plainly, case.asked), size.cheat, "cheat")
            add(Case(f"batches of 50, {_words(case.asked)}", _plainly), "honest", truths[key])
        if not case.sampling:
            add(case, "plain", seen, truths[key])
        add(case, "forged", [one.forged() for one in seen], truths[key])
    return Outcome(wide, narrow, tuple(results))


def _plainly(stage: Stage, asked: Sequence[Job]) -> list[Served]:
    return Host(stage.model).serve(asked)


def _words(asked: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', '-')} {value:g}" for name, value in asked.items())


def _changed(seen: Sequence[Seen], base: Sequence[Seen], by: Limits) -> tuple[float, float | None]:
    apart = [one for one, true in zip(seen, base, strict=True) if one.ids != true.ids]
    share = len(apart) / len(seen)
    return share, rates(apart, by, toploc.PUBLISHED["bf16"]).guilty if apart else None
