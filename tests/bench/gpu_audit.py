"""Honest hosts and cheats on a graphics card, audited on the card and on the processor: shares, and the numbers under
them. Each precision is measured by processes of its own, side by side, as no time is taken here.

Limits come from the honest jobs of one half of the time, false alarms from other honest jobs under them.
"""

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from lading_node.core.sampler import EXACT, TOLERANT
from lading_node.core.sketch import directions, project
from lading_node.engines.model import LanguageModel, retraced
from lading_protocol.audit import Tolerance
from lading_protocol.sketches import chunk_means, errors
from lading_protocol.transcript import SKETCH_BYTES

from . import audit_cases as cases
from . import gpu_models
from .audit_cases import Seen, Stage
from .audit_hosts import Host, Job, Served
from .audit_results import Limits, limits, rates
from .audit_toploc import Apart
from .report import say

# Classes of hosts on a card, and where their auditors compute. The torch engine has no f16 on a processor.
AUDITORS = {"f32": ("cuda", "cpu"), "bf16": ("cuda", "cpu"), "f16": ("cuda",)}
NO_PROOF = Apart(0, 0, 0)
LEVELS = (0.5, 0.99, 0.999)


class Size(NamedTuple):
    """Over all processes of a precision: honest jobs at most, jobs of each cheat, and the seconds for all of it, after
    which no further cheat is begun."""

    honest: int
    cheat: int
    processes: int
    seconds: float


FULL, QUICK = Size(6000, 150, 3, 200.0), Size(24, 4, 2, 600.0)
# Of the seconds, those for honest jobs.
HONEST_PART = 0.5


class Part(NamedTuple):
    """One process's share of the work of one precision on `device`."""

    precision: str
    device: str
    number: int
    size: Size


class Batch(NamedTuple):
    """Jobs of one case; `seen` is by the auditor's device, `true` what an honest host shows there of a cheat's jobs."""

    case: str
    kind: str  # "honest", "processor", "truth", "cheat"
    seen: dict[str, list[Seen]]
    sampling: bool = False
    true: Sequence[Seen] = ()


class Pair(msgspec.Struct, frozen=True):
    """What one class of auditors sees of honest hosts. `margins` are the LEVELS of a job's largest, then the largest
    of all; `guilty` and `flagged` count `fresh` jobs, which the limits do not come from."""

    host: str
    auditor: str
    jobs: int
    tokens: int
    flips: float
    margins: tuple[float, ...]
    chunks: tuple[float, ...]
    prompt: float
    limits: Tolerance
    fresh: int
    guilty: int
    flagged: int
    setups: dict[str, tuple[int, float, float]]


class Caught(msgspec.Struct, frozen=True):
    """Shares of a cheat's jobs by an auditor on the card. `caught` is of those whose tokens it changed."""

    host: str
    case: str
    kind: str  # "plain", "forged"
    jobs: int
    guilty: float
    flagged: float
    changed: float
    caught: float | None
    pooled: dict[int, float]


class Outcome(msgspec.Struct, frozen=True):
    pairs: tuple[Pair, ...]
    caught: tuple[Caught, ...]


def run(device: str, size: Size) -> Outcome:
    """Every precision at once."""
    todo = [Part(precision, device, n, size) for precision in AUDITORS for n in range(size.processes)]
    todo = [part for part in todo if part.precision != "f16" or device != "cpu"]
    # A pool that says so when one of its processes is killed, instead of waiting for it for ever.
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(len(todo), 16), mp_context=spawning) as pool:
        done = list(pool.map(work, todo))
    pairs, caught = [], []
    for precision in dict.fromkeys(part.precision for part in todo):
        own = [batch for part, found in zip(todo, done, strict=True) if part.precision == precision for batch in found]
        found, table = _pairs(precision, device, own)
        pairs += found
        caught += _cheats(precision, device, own, table)
    return Outcome(tuple(pairs), tuple(caught))


# --- in a process of a precision


def work(part: Part) -> list[Batch]:
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        spec = gpu_models.chat(Path(folder))
        stage = gpu_models.stage(spec, part.precision, part.device)
        auditors = _own(part, stage)
        if "cpu" in AUDITORS[part.precision]:
            auditors["cpu"] = gpu_models.opened(spec, part.precision, "cpu")
        card = gpu_models.Card(spec, part.precision, part.device)
        found = _honest(part, stage, auditors, began + HONEST_PART * part.size.seconds)
        if "cpu" in auditors:
            found.append(_processor(part, stage, auditors["cpu"]))
        return [*found, *_cheating(part, stage, card, began + part.size.seconds)]


def _honest(part: Part, stage: Stage, auditors: dict[str, LanguageModel], until: float) -> list[Batch]:
    """Set-ups in turn, half a hundred jobs each at most, until all are done or the time is up."""
    found = []
    share = part.size.honest // part.size.processes
    left = {one.name: max(1, round(one.part * share)) for one in gpu_models.HONEST}
    turn = 0
    while any(left.values()) and time.monotonic() < until:
        for one in gpu_models.HONEST:
            count = min(left[one.name], max(2, round(100 * one.part)))
            if not count:
                continue
            left[one.name] -= count
            asked = cases.jobs(stage, count, f"honest {one.name} {part.precision} {part.number} {turn}")
            served = one.serve(stage, asked)
            found.append(Batch(one.name, "honest", _audited(stage, auditors, asked, served)))
        turn += 1
    return found


def _processor(part: Part, stage: Stage, model: LanguageModel) -> Batch:
    """Hosts on the processor before an auditor on the card."""
    from . import audit_models as models

    count = max(2, part.size.cheat // part.size.processes)
    asked = cases.jobs(stage, count, f"processor {part.number}")
    served = Host(models.own_copy(model)).serve(asked)
    return Batch("a host on the processor", "processor", _audited(stage, _own(part, stage), asked, served))


def _cheating(part: Part, stage: Stage, card: gpu_models.Card, until: float) -> list[Batch]:
    found, truths = [], dict[str, list[Seen]]()
    count = max(2, part.size.cheat // part.size.processes)
    auditors = _own(part, stage)
    for cheat in gpu_models.cheats(card):
        if time.monotonic() > until:
            print(f"{part.precision}: no time for {cheat.name}", file=sys.stderr, flush=True)
            continue
        key = str(cheat.asked)
        asked = cases.jobs(stage, count, f"cheat {part.number}", cheat.asked)
        if key not in truths:
            honest = _audited(stage, auditors, asked, Host(stage.model).serve(asked))
            truths[key] = honest[part.device]
            found.append(Batch("", "truth", honest))
        served = cheat.serve(stage, asked)
        seen = _audited(stage, auditors, asked, served)
        found.append(Batch(cheat.name, "cheat", seen, cheat.sampling, truths[key]))
    return found


def _own(part: Part, stage: Stage) -> dict[str, LanguageModel]:
    """The auditor of the host's own class."""
    assert stage.engine is not None
    return {part.device: stage.engine}


def _audited(
    stage: Stage, auditors: dict[str, LanguageModel], asked: Sequence[Job], served: Sequence[Served]
) -> dict[str, list[Seen]]:
    return {
        name: [examine(model, job, one, stage.exact) for job, one in zip(asked, served, strict=True)]
        for name, model in auditors.items()
    }


def examine(auditor: LanguageModel, job: Job, served: Served, exact: bool) -> Seen:
    """One audit, as an engine scores it and lading_protocol.sketches compares."""
    slack = EXACT if exact else TOLERANT
    margins, own = retraced(auditor, job.prompt, served.ids, 0, job.sampler, job.id, slack)
    theirs = project(served.states, directions(job.id, served.states.shape[1]))
    apart = errors(own, theirs)
    before = len(own) // SKETCH_BYTES - len(served.ids)
    return Seen(margins, chunk_means(apart[before:]), tuple(apart[:before]), NO_PROOF, tuple(served.ids))


# --- what it comes to


def _pairs(precision: str, device: str, found: Sequence[Batch]) -> tuple[list[Pair], Limits]:
    """Every other batch of an honest set-up calibrates, the others are what a false alarm would be of."""
    pairs, own = [], None
    for auditor in dict.fromkeys((device, *(("cpu",) if "cpu" in AUDITORS[precision] else ()))):
        honest = [batch for batch in found if batch.kind == "honest"]
        calibrating = [one for batch in honest[::2] for one in batch.seen[auditor]]
        fresh = [one for batch in honest[1::2] for one in batch.seen[auditor]]
        fresh += [one for batch in found if batch.kind == "truth" for one in batch.seen.get(auditor, ())]
        table = limits(calibrating, precision == "f32" and _is_exact(calibrating))
        own = own or table
        pairs.append(
            _pair(f"torch-{precision}-{device}", f"torch-{precision}-{auditor}", honest, auditor, table, fresh)
        )
    processor = [batch for batch in found if batch.kind == "processor"]
    assert own is not None
    if processor:
        seen = [one for batch in processor for one in batch.seen[device]]
        pairs.append(_pair(f"torch-{precision}-cpu", f"torch-{precision}-{device}", processor, device, own, seen))
    return pairs, own


def _is_exact(seen: Sequence[Seen]) -> bool:
    from lading_protocol.audit import EXACT_MARGIN

    return max(max(one.margins) for one in seen) <= EXACT_MARGIN


def _pair(host: str, auditor: str, honest: Sequence[Batch], device: str, table: Limits, fresh: Sequence[Seen]) -> Pair:
    seen = [one for batch in honest for one in batch.seen[device]]
    setups: dict[str, tuple[int, float, float]] = {}
    for batch in honest:
        count, margin, chunk = setups.get(batch.case, (0, 0.0, 0.0))
        margins = [max(one.margins) for one in batch.seen[device]]
        chunks = [max(one.chunks) for one in batch.seen[device]]
        setups[batch.case] = (count + len(margins), max(margin, *margins), max(chunk, *chunks))
    judged = rates(fresh, table, NO_PROOF)
    return Pair(
        host=host,
        auditor=auditor,
        jobs=len(seen),
        tokens=sum(len(one.margins) for one in seen),
        flips=float(np.mean([margin > 0 for one in seen for margin in one.margins])),
        margins=_levels([max(one.margins) for one in seen]),
        chunks=_levels([max(one.chunks) for one in seen]),
        prompt=max(max(one.prompt) for one in seen),
        limits=table.tolerance,
        fresh=len(fresh),
        guilty=round(judged.guilty * len(fresh)),
        flagged=round(judged.flagged * len(fresh)),
        setups=setups,
    )


def _levels(values: Sequence[float]) -> tuple[float, ...]:
    return (*(float(np.quantile(values, level)) for level in LEVELS), max(values))


def _cheats(precision: str, device: str, found: Sequence[Batch], table: Limits) -> list[Caught]:
    by_case: dict[str, list[Batch]] = {}
    for batch in found:
        if batch.kind == "cheat":
            by_case.setdefault(batch.case, []).append(batch)
    caught = []
    for case, batches in by_case.items():
        seen = [one for batch in batches for one in batch.seen[device]]
        true = [one for batch in batches for one in batch.true]
        kinds = [("forged", [one.forged() for one in seen])]
        if not batches[0].sampling:
            kinds.insert(0, ("plain", seen))
        for kind, shown in kinds:
            caught.append(_caught(f"torch-{precision}-{device}", case, kind, shown, true, table))
    return caught


def _caught(host: str, case: str, kind: str, seen: Sequence[Seen], truth: Sequence[Seen], table: Limits) -> Caught:
    found = rates(seen, table, NO_PROOF)
    apart = [one for one, true in zip(seen, truth, strict=True) if one.ids != true.ids]
    share = rates(apart, table, NO_PROOF).guilty if apart else None
    return Caught(host, case, kind, len(seen), found.guilty, found.flagged, len(apart) / len(seen), share, found.pooled)


# --- as lines

# The case, whether with forged sketches, and the bar: as for hosts on a processor (bench_audit), where it is there too.
BARS = {
    ("int4", "plain"): ("guilty", 99),
    ("fp8", "plain"): ("guilty", 99),
    ("KV int4", "plain"): ("guilty", 99),
    ("skipped layer", "plain"): ("guilty", 99),
    ("skipped layer", "forged"): ("guilty", 99),
    ("wrong seed", "forged"): ("caught", 99),
    ("temperature 0.9 for 1", "forged"): ("caught", 99),
    ("top-k 20 ignored", "forged"): ("caught", 99),
    ("bf16 for f32", "plain"): ("guilty", 99),
}


def told(found: Outcome) -> None:
    for pair in found.pairs:
        slug = f"gpu_audit_{_short(pair.host)}_by_{_short(pair.auditor)}"
        most = f"largest margin {pair.margins[-1]:.3g} logits, chunk error {pair.chunks[-1]:.3g}"
        words = f"{most}, prompt error {pair.prompt:.3g}; {100 * pair.flips:.2g} % of {pair.tokens:,} tokens differ"
        say(f"{slug}_honest_guilty", pair.guilty, "jobs", bar="<= 0", n=pair.fresh, note=words)
        say(f"{slug}_honest_flagged", 100 * pair.flagged / pair.fresh, "%", bar="<= 1", n=pair.fresh)
    for one in found.caught:
        what, least = BARS.get((one.case, one.kind), ("guilty", None))
        value = one.guilty if what == "guilty" else one.caught or 0.0
        note = f"{one.kind}; {100 * one.flagged:.3g} % flagged; {100 * one.changed:.3g} % have other tokens"
        slug = f"gpu_audit_{_short(one.host)}_{one.case}_{one.kind}_{what}".replace(" ", "_")
        say(slug, 100 * value, "%", bar=f">= {least}" if least else None, n=one.jobs, note=note)


def _short(numeric: str) -> str:
    return numeric.removeprefix("torch-").replace("-", "_")
