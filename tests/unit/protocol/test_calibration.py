"""Tables of honest hosts: signed, read with suspicion, and what limits follow from them."""

from math import inf

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import key
from lading_protocol.audit import EXACT_MARGIN, TOLERANCES
from lading_protocol.calibration import (
    LEAST_CHUNK,
    LEAST_JOBS_INEXACT,
    BadCalibration,
    Calibration,
    Seen,
    canonical,
    limits,
    read,
    sign,
    signer,
    tolerance,
    write,
)

SPEC = bytes(range(32))
SIGNER = key("calibrator")
TABLE = Calibration(
    spec="0x" + SPEC.hex(),
    agent="lading-chat 1",
    host="torch-bf16-cpu",
    auditor="torch-bf16-cpu",
    host_engine="torch 2.13",
    auditor_engine="torch 2.13",
    hardware="a processor",
    date="2026-11-26",
    seed=1,
    jobs=LEAST_JOBS_INEXACT,
    tokens=128 * LEAST_JOBS_INEXACT,
    exact=False,
    margin=Seen(0.07, 0.05),
    chunk=Seen(0.015, 0.0147),
    prompt=Seen(0.047, 0.046),
    clipped=6e-6,
    clipped_sd=3e-4,
    flips=6e-4,
    chunk_mean=0.009,
    chunk_sd=0.003,
)


def changed(**parts: object) -> Calibration:
    return msgspec.structs.replace(TABLE, **parts)


def test_a_table_is_read_as_it_was_written_and_only_from_whom_is_trusted() -> None:
    data = write([sign(TABLE, SIGNER)])
    assert read(data, [SIGNER.address]) == (TABLE,)
    with pytest.raises(BadCalibration, match="whom nobody here trusts"):
        read(data, [key("somebody").address])


@given(st.sampled_from(Calibration.__struct_fields__), st.integers(0, 2**32))
def test_every_field_is_signed(field: str, number: int) -> None:
    """Whatever is altered, the table is not what its publisher signed."""
    old = getattr(TABLE, field)
    match old:
        case bool():
            new: object = not old
        case int() | float():
            new = old + 1 + number
        case str():
            new = f"{old}{number}"
        case _:
            new = Seen(old.most + 1, old.rare)
    signed = sign(TABLE, SIGNER)
    assert signer(msgspec.structs.replace(signed, table=changed(**{field: new}))) != SIGNER.address


@pytest.mark.parametrize(
    "parts",
    [
        {"margin": Seen(0.01, 0.02)},
        {"chunk_mean": 0.5},
        {"clipped": 0.5},
        {"flips": 2.0},
        {"jobs": 19},
        {"tokens": 10},
        {"exact": True},
    ],
)
def test_a_table_that_contradicts_itself_is_refused_whoever_signed_it(parts: dict[str, object]) -> None:
    with pytest.raises(BadCalibration, match="contradicts itself"):
        read(write([sign(changed(**parts), SIGNER)]), [SIGNER.address])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"most": 0.07', b'"most": NaN'),
        (b'"most": 0.07', b'"most": 1e999'),
        (b'"most": 0.07', b'"most": -1'),
        (b'"seed": 1', b'"seed": 1, "more": 1'),
        (b'"date": "2026-11-26"', b'"date": "yesterday"'),
        (b"[", b"[" * 100_000),
    ],
)
def test_hostile_files_are_refused_in_words(old: bytes, new: bytes) -> None:
    data = write([sign(TABLE, SIGNER)])
    assert old in data
    with pytest.raises(BadCalibration, match="do not read"):
        read(data.replace(old, new, 1), [SIGNER.address])


def test_the_limits_of_a_tolerant_class() -> None:
    found = tolerance(TABLE)
    assert found.margin == pytest.approx(0.21)
    assert found.chunk == pytest.approx(0.03)
    assert found.prompt == pytest.approx(0.141)
    assert (found.rare_margin, found.rare_chunk, found.rare_prompt) == (0.05, 0.0147, 0.046)
    small = tolerance(changed(margin=Seen(0.001, 0.001), prompt=Seen(0.001, 0.001), chunk=Seen(0.0, 0.0)))
    assert (small.margin, small.prompt, small.chunk) == (0.1, 0.1, LEAST_CHUNK)


def test_an_exact_class_is_compared_by_equality() -> None:
    exact = changed(exact=True, margin=Seen(0.0, 0.0), clipped=0.0)
    assert read(write([sign(exact, SIGNER)]), [SIGNER.address]) == (exact,)
    assert tolerance(exact).margin == EXACT_MARGIN == tolerance(exact).rare_margin


def test_nobody_is_slashed_without_a_table_of_enough_jobs() -> None:
    pair = ("torch-bf16-cpu", "torch-bf16-cpu")
    assert limits([], SPEC, *pair) is None
    assert limits([TABLE], bytes(32), *pair) is None
    assert limits([TABLE], SPEC, "torch-bf16-cpu", "onnx-f32-cpu") is None
    assert limits([TABLE], SPEC, *pair) == tolerance(TABLE)
    few = limits([changed(jobs=200)], SPEC, *pair)
    assert few is not None
    assert (few.margin, few.chunk, few.prompt) == (inf, inf, inf)
    assert few.rare_margin == 0.05


def test_a_class_that_is_known_whatever_it_computes_stays_known() -> None:
    known = "onnx-f32-cpu"
    assert limits([TABLE], bytes(32), known, known) == TOLERANCES[known]
    exact = changed(exact=True, host=known, auditor=known, margin=Seen(0.0, 0.0), clipped=0.0)
    found = limits([exact], SPEC, known, known)
    assert found is not None
    assert (found.margin, found.relative) == (EXACT_MARGIN, TOLERANCES[known].relative)


def test_canonical_json_has_one_form() -> None:
    again = msgspec.json.decode(canonical(TABLE), type=Calibration)
    assert canonical(again) == canonical(TABLE)
    assert b" " not in canonical(changed(agent="a", host_engine="b", auditor_engine="c", hardware="d"))
