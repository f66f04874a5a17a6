"""Audits by and of cards: an honest host is within its class's limits whoever looks, and what a cheat saves is seen."""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import pytest

from lading_node.engines.port import EngineSpec
from lading_protocol.audit import EXACT_MARGIN, Verdict

pytest.importorskip("torch", reason="torch is not installed (the `torch` extra)")
pytest.importorskip("transformers", reason="transformers is not installed (the `torch` extra)")

from bench import audit_cases as cases
from bench import audit_models as models
from bench import gpu_audit, gpu_models
from bench.audit_cases import Seen, Stage
from bench.audit_hosts import Host, Job, Served
from bench.audit_results import limits, verdict

JOBS = 16
# Of two precisions of one model; a calibration of thousands of jobs gives a tighter one.
WIDE_MARGIN, WIDE_CHUNK = 0.3, 0.05
PLAIN_TO_SEE = ("int4", "fp8", "KV int4", "skipped layer", "wrong seed")


class Court:
    """A host on the card in one precision, an auditor there, and limits from known-good jobs."""

    def __init__(self, spec: EngineSpec, device: str) -> None:
        self.card = gpu_models.Card(spec, spec.precision, device)
        self.stage: Stage = gpu_models.stage(spec, spec.precision, device)
        known = self.seen(self.asked("known"), lambda stage, asked: Host(stage.model).serve(asked))
        self.limits = limits(known, self.stage.exact).tolerance
        if not self.stage.exact:
            # A few jobs have not seen what a rare honest one shows.
            self.limits = msgspec.structs.replace(self.limits, margin=WIDE_MARGIN)
        self._true: dict[str, list[Seen]] = {}

    def asked(self, salt: str, how: dict[str, float] | None = None) -> list[Job]:
        return cases.jobs(self.stage, JOBS, salt, how)

    def seen(self, asked: Sequence[Job], serve: Callable[[Stage, Sequence[Job]], list[Served]]) -> list[Seen]:
        served = serve(self.stage, asked)
        auditor = self.stage.engine
        assert auditor is not None
        return [gpu_audit.examine(auditor, job, one, self.stage.exact) for job, one in zip(asked, served, strict=True)]

    def true(self, how: dict[str, float]) -> list[Seen]:
        """What an honest host shows of the jobs that cheats are asked."""
        if str(how) not in self._true:
            self._true[str(how)] = self.seen(
                self.asked("cheat", how), lambda stage, asked: Host(stage.model).serve(asked)
            )
        return self._true[str(how)]

    def guilty(self, seen: Sequence[Seen]) -> int:
        return sum(verdict(one, self.limits).verdict == Verdict.GUILTY for one in seen)


@pytest.fixture(scope="module")
def courts(device: str) -> Callable[[EngineSpec], Court]:
    made: dict[str, Court] = {}

    def court(spec: EngineSpec) -> Court:
        if spec.precision not in made:
            made[spec.precision] = Court(spec, device)
        return made[spec.precision]

    return court


def test_honest_hosts_are_honest_to_a_card(courts: Callable[[EngineSpec], Court], precise: EngineSpec) -> None:
    """However it computes: padded batches, drafts, one prefill, another attention kernel, the engine itself."""
    court = courts(precise)
    for setup in gpu_models.HONEST:
        seen = court.seen(court.asked(setup.name)[:6], setup.serve)
        worst = max(max(one.margins) for one in seen)
        chunk = max(max(one.chunks) for one in seen)
        print(f"{precise.precision}, {setup.name}: margin {worst:.3g}, chunk {chunk:.3g}")
        assert worst <= (EXACT_MARGIN if precise.precision == "f32" else WIDE_MARGIN), setup.name
        assert chunk < (1e-3 if precise.precision == "f32" else WIDE_CHUNK), setup.name


def test_several_streams_are_no_further_off_than_known_good_batches(
    courts: Callable[[EngineSpec], Court], precise: EngineSpec
) -> None:
    """The engine's own passes, and the library's padded ones, for the same jobs: what an auditor sees on average."""
    court = courts(precise)
    asked = court.asked("streams")
    ways = {"padded": lambda stage, jobs: Host(stage.model).serve(jobs)}
    for count in (1, 4, 16):
        ways[f"{count} streams"] = gpu_models.streams(count)
    seen = {name: court.seen(asked, serve) for name, serve in ways.items()}
    assert court.guilty([one for several in seen.values() for one in several]) == 0
    off = {}
    for name, several in seen.items():
        off[name] = float(np.mean([chunk for one in several for chunk in one.chunks]))
        margins = [margin for one in several for margin in one.margins]
        flips = sum(margin > 0 for margin in margins)
        print(
            f"{precise.precision}, {name}: chunk errors {off[name]:.3g} on average, "
            f"margins {max(margins):.3g} at most, {flips} of {len(margins)} tokens differ"
        )
    if precise.precision == "f32":
        assert len({tuple(one.ids for one in several) for several in seen.values()}) == 1
    else:
        assert max(off.values()) < 1.5 * off["padded"]


@pytest.mark.parametrize("by", ["the processor", "the card"])
def test_a_card_and_a_processor_believe_each_other(
    courts: Callable[[EngineSpec], Court], precise: EngineSpec, by: str
) -> None:
    if precise.precision == "f16":
        pytest.skip("the torch engine has no f16 on a processor")
    court = courts(precise)
    processor = gpu_models.opened(precise, precise.precision, "cpu")
    asked = court.asked("pairs")
    if by == "the card":
        seen = court.seen(asked, lambda _, jobs: Host(models.own_copy(processor)).serve(jobs))
    else:
        served = Host(court.stage.model).serve(asked)
        pairs = zip(asked, served, strict=True)
        seen = [gpu_audit.examine(processor, job, one, court.stage.exact) for job, one in pairs]
    worst = max(max(one.margins) for one in seen)
    chunk = max(max(one.chunks) for one in seen)
    print(f"{precise.precision}, audited by {by}: margin {worst:.3g}, chunk {chunk:.3g}")
    assert worst <= (EXACT_MARGIN if precise.precision == "f32" else WIDE_MARGIN)
    assert chunk < (1e-3 if precise.precision == "f32" else WIDE_CHUNK)


def test_what_a_cheat_computes_on_a_card_is_seen(courts: Callable[[EngineSpec], Court], precise: EngineSpec) -> None:
    court = courts(precise)
    for cheat in gpu_models.cheats(court.card):
        asked = court.asked("cheat", cheat.asked)
        seen = court.seen(asked, cheat.serve)
        true = court.true(cheat.asked)
        caught = court.guilty(seen)
        changed = sum(one.ids != other.ids for one, other in zip(seen, true, strict=True))
        print(f"{precise.precision}, {cheat.name}: {caught} of {JOBS} guilty, {changed} with other tokens")
        assert court.guilty(true) == 0
        if cheat.name in PLAIN_TO_SEE or (precise.precision == "f32" and cheat.name in ("int8", "bf16 for f32")):
            assert caught == JOBS, cheat.name
        elif cheat.sampling and precise.precision == "f32":
            # What a sampler's cheat left as it was was served as ordered.
            assert caught >= changed, cheat.name
        elif cheat.name == "top-k 20 ignored":
            # What lies within the slack of the cut passes, and a temperature that is a little off takes a long record.
            assert caught >= changed // 3, cheat.name
