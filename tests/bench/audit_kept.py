"""What `make bench-audit` measured of a configuration, in build/audit: so that a run that was broken off goes on.

It counts only for the code, the models and the processor that it was measured with.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from . import ROOT, page
from .audit_run import Outcome

OUT = ROOT / "build" / "audit"
# What the numbers follow from. How they are shown is not among it.
SOURCES = (
    "node/lading_node/core/calibrating.py",
    "node/lading_node/core/sampler.py",
    "node/lading_node/core/sketch.py",
    "node/lading_node/engines/llm_onnx.py",
    "node/lading_node/engines/model.py",
    "node/lading_node/engines/torch_lm.py",
    "protocol/lading_protocol/audit.py",
    "protocol/lading_protocol/calibration.py",
    "protocol/lading_protocol/conduct.py",
    "protocol/lading_protocol/sketches.py",
    "tests/bench/audit_cases.py",
    "tests/bench/audit_hosts.py",
    "tests/bench/audit_models.py",
    "tests/bench/audit_recipe.py",
    "tests/bench/audit_results.py",
    "tests/bench/audit_run.py",
    "tests/bench/audit_toploc.py",
    "tests/vectors/models/*/*",
    "agents/chat/model/*",
)


class Kept(msgspec.Struct, frozen=True):
    """`code` is of all that the outcome follows from; "" for one that was measured before that was noted."""

    machine: str
    outcome: Outcome
    code: str = ""


def code(root: Path = ROOT) -> str:
    whole = hashlib.sha256()
    for path in _files(root):
        whole.update(path.relative_to(root).as_posix().encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def _files(root: Path) -> Iterator[Path]:
    for pattern in SOURCES:
        found = [path for path in sorted(root.glob(pattern)) if path.is_file()]
        if not found:
            raise FileNotFoundError(f"{pattern} is not there: what the audit benchmark measures has moved.")
        yield from found


def read(name: str) -> Kept | None:
    """As it was last measured, whatever has changed since."""
    path = OUT / f"{name}.json"
    return msgspec.json.decode(path.read_bytes(), type=Kept) if path.exists() else None


def valid(name: str) -> Kept | None:
    """As it would be measured now, here."""
    kept = read(name)
    if kept is None or kept.code != code() or _processor(kept.machine) != _processor(page.hardware()):
        return None
    return kept


def write(name: str, outcome: Outcome) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    kept = Kept(page.hardware(), outcome, code())
    (OUT / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1))


def _processor(machine: str) -> str:
    return machine.partition(",")[0]
