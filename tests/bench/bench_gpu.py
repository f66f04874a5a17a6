"""On a graphics card: honest hosts and cheats before auditors there and on the processor, the torch engine against a
bare loop, and what an audit costs. Needs a CUDA device and says so where there is none.

`--device cpu` with `--quick` rehearses all of it on a processor, with a few jobs and a tiny model.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import msgspec

LACKING = 77  # as __main__ reads it
PARTS = ("audit", "speed", "costs")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few jobs and a tiny model")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part; may be given again")
    parser.add_argument("--seconds", type=float, help="for the audits, of which more time makes more")
    parser.add_argument("--out", type=Path, help="a folder for what the audits showed; build/audit by default")
    args = parser.parse_args()
    os.environ |= {"HF_HUB_OFFLINE": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    os.environ |= {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    warnings.filterwarnings("ignore", message="TF32 acceleration")
    import torch

    torch.set_num_threads(1)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("This machine has no CUDA device.", file=sys.stderr)
        return LACKING
    parts = args.only or PARTS
    with tempfile.TemporaryDirectory() as folder:
        if "audit" in parts:
            audits(args.device, args.quick, args.seconds, args.out)
        if "speed" in parts or "costs" in parts:
            times(Path(folder), args.device, args.quick, parts)
    return 0


def audits(device: str, quick: bool, seconds: float | None, out: Path | None) -> None:
    from . import ROOT, gpu_audit, page

    size = gpu_audit.QUICK if quick else gpu_audit.FULL
    found = gpu_audit.run(device, size._replace(seconds=seconds or size.seconds))
    gpu_audit.told(found)
    if quick and out is None:
        return
    folder = out or ROOT / "build" / "audit"
    folder.mkdir(parents=True, exist_ok=True)
    kept = {"machine": page.hardware(), "outcome": found}
    (folder / "gpu.json").write_bytes(msgspec.json.format(msgspec.json.encode(kept), indent=1))


def times(folder: Path, device: str, quick: bool, parts: Sequence[str]) -> None:
    from . import gpu_costs, gpu_large, gpu_models, gpu_speed
    from .gpu_speed import Load, Subject

    shape, inner = (gpu_large.TINY, gpu_large.TINY_INNER) if quick else (gpu_large.SHAPE, gpu_large.INNER)
    chat = gpu_speed.with_slots(gpu_models.chat(folder / "chat"), device)
    large = gpu_large.write(folder / "large", shape, inner, device)
    count = gpu_large.stated(shape, inner, 0, 0) - 4 * shape.vocab * shape.hidden
    words = f"{count / 2e9:.3g} billion parameters, random, bf16 with its last projection in f32"
    if "costs" in parts:
        gpu_costs.report("chat", chat, "the chat model, f32", 3)
        gpu_costs.report("large", large, words, 3)
        gpu_costs.commitments(3 if quick else 15)
    if "speed" in parts:
        few = (Load(1, 8), Load(4, 8), Load(16, 8))
        stated = gpu_large.stated(shape, inner, 16, 128)
        for subject in (
            Subject("chat", chat, "the chat model, f32", few if quick else (Load(1, 128), Load(4, 128), Load(16, 128))),
            Subject("large", large, words, few if quick else (Load(1, 64), Load(4, 64), Load(16, 64)), stated),
        ):
            asyncio.run(gpu_speed.measure(subject, 2 if quick else 3))


if __name__ == "__main__":
    sys.exit(main())
