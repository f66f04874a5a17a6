"""The audit benchmark's own arithmetic: TOPLOC's proofs, and rates from what audits saw."""

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from integration.engines.tiny_torch import require_torch

RNG = np.random.default_rng(3)
STATES = RNG.normal(size=(70, 64)).astype(np.float32)
PROMPT = 10


@pytest.fixture(autouse=True)
def torch_is_here() -> None:
    """The modules under test import it."""
    require_torch()


def seen(margin: float = 0.0, chunk: float = 0.004, prompt: float = 0.01) -> Any:
    from bench import audit_toploc as toploc
    from bench.audit_cases import Seen

    return Seen((*[0.0] * 127, margin), (chunk,) * 4, (prompt,) * 9, toploc.Apart(2, 0.5, 0.0), (1,) * 128)


def test_a_proof_of_the_same_states_fits_and_one_of_others_does_not() -> None:
    from bench import audit_toploc as toploc

    proofs = toploc.prove(STATES, PROMPT)
    assert [len(proof) for proof in proofs] == [toploc.PROOF_BYTES] * 3
    assert toploc.apart(STATES, PROMPT, proofs) == (0, 0, 0)
    near = toploc.apart(STATES * np.float32(1.01), PROMPT, proofs)
    assert near.passes(toploc.PUBLISHED["bf16"])
    assert near.mean > 0
    other = toploc.prove(RNG.normal(size=STATES.shape).astype(np.float32), PROMPT)
    assert not toploc.apart(STATES, PROMPT, other).passes(toploc.PUBLISHED["bf16"])


def test_our_proofs_are_the_packages() -> None:
    """The digest is of what toploc 0.1.6, built from its source, makes of these states."""
    from bench import audit_toploc as toploc

    made = hashlib.sha256(b"".join(toploc.prove(STATES, PROMPT))).hexdigest()
    assert made == "f0a61c20643f61d646741d95a575817ff59450e55fca982df8b0ce40a7cb669c"


def test_rates_count_guilty_flagged_and_pooled() -> None:
    from bench import audit_results as results
    from bench import audit_toploc as toploc

    honest = [seen(margin) for margin in (0.0,) * 180 + (0.004,) * 20]
    by = results.limits(honest, exact=False)
    assert by.tolerance.margin == 0.1
    cheat = [seen()] * 50 + [seen(0.03)] * 30 + [seen(0.5)] * 15 + [seen(chunk=0.5)] * 5
    found = results.rates(cheat, by, toploc.PUBLISHED["bf16"])
    assert (found.guilty, found.flagged) == (0.2, 0.5)
    assert found.flips == pytest.approx(45 / 100 / 128)
    assert found.pooled[5] > 0.9
    assert found.pooled[120] == 1.0
    assert results.rates(honest, by, toploc.PUBLISHED["bf16"]).alone[120] < 0.01


def test_what_is_kept_counts_for_the_code_and_the_processor_that_it_was_measured_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench import audit_kept as kept
    from bench import audit_results as results
    from bench.audit_run import Outcome

    monkeypatch.setattr(kept, "OUT", tmp_path)
    assert kept.valid("chat-f32") is None
    by = results.limits([seen()] * 20, exact=True)
    kept.write("chat-f32", Outcome(by, by, ()))
    found = kept.valid("chat-f32")
    assert found is not None
    assert found.outcome == Outcome(by, by, ())
    for changed in ({"code": "another"}, {"machine": "Another, 2 cores"}):
        (tmp_path / "chat-f32.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(found, **changed)))
        assert kept.valid("chat-f32") is None
        assert kept.read("chat-f32") is not None
    with pytest.raises(FileNotFoundError, match="has moved"):
        kept.code(tmp_path)


def test_a_drift_gives_back_the_share_of_suspect_records_that_it_was_measured_by() -> None:
    from bench.audit_shares import drift, shown
    from lading_protocol.conduct import Z_LIMIT

    rng = np.random.default_rng(1)
    for true in (0.3, 0.6, 1.4):
        alone = {n: float((rng.normal(true * n**0.5, 1, 20_000) > Z_LIMIT).mean()) for n in (5, 20, 120)}
        assert drift(alone) == pytest.approx(true, abs=0.03)
    assert drift({5: 1.0, 20: 1.0, 120: 1.0}) > 3
    assert drift({5: 0.0, 20: 0.0, 120: 0.0}) == 0
    # What the simulation goes by: an exact class shows more of every cheat, and a job of 200 is no share.
    for case in ("int4", "fp8", "int8"):
        assert shown(case, "forged", "f32") > shown(case, "forged", "bf16")
    assert shown("fp8", "forged", "bf16").caught_ppm == 0
    with pytest.raises(KeyError):
        shown("nothing", "forged", "f32")
