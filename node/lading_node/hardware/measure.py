"""The process that measures: rounds over all items until the time is up, a JSON line for every sample.

Run with -m and the seconds it has, the threads it may use, and our process id. Whoever started it may kill it at any
moment: what it has written by then counts.
"""

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

import msgspec

# One sample takes about this long: long beside a clock's tick, short beside the noise of a neighbour.
_SAMPLE_SECONDS = 0.03
_MOST_ROUNDS = 50
_LARGEST = 2048
_COPY_BYTES = 128 << 20
# Importing torch for the processor alone costs seconds that a short run does not have.
_TORCH_SECONDS = 15.0


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`value` in `unit`; where `skipped` says why there is none, nothing else counts."""

    name: str
    unit: str = ""
    value: float = 0.0
    skipped: str = ""


class Item(NamedTuple):
    """`run` does the work once; `work` is how many trillions of operations, or billions of bytes, that is."""

    name: str
    unit: str
    work: float
    run: Callable[[], object]


def main() -> int:
    from lading_node.engines.confine import die_with, take_stdio

    seconds, threads, parent = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    end = time.perf_counter() + seconds
    die_with(parent)
    _, writing = take_stdio()
    with open(writing, "wb", buffering=0) as out:
        rounds(items(threads, seconds), end, lambda sample: out.write(msgspec.json.encode(sample) + b"\n"))
    return 0


def rounds(found: Iterator[Item | Sample], end: float, tell: Callable[[Sample], object]) -> None:
    """Every item once as it is made, then all in turn, so that a busy second does not fall on one of them."""
    ready: list[Item] = []
    for made in found:
        if isinstance(made, Sample):
            tell(made)
            continue
        made.run()  # warm: threads, caches, packed weights
        ready.append(made)
        tell(_timed(made))
    for _ in range(_MOST_ROUNDS):
        for item in ready:
            if time.perf_counter() >= end:
                return
            tell(_timed(item))


def _timed(item: Item) -> Sample:
    """As many runs as fill a sample."""
    runs, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < _SAMPLE_SECONDS or not runs:
        item.run()
        runs += 1
    return Sample(item.name, item.unit, item.work * runs / spent)


def items(threads: int, seconds: float) -> Iterator[Item | Sample]:
    yield from _processor(threads)
    accelerators = _accelerators() if find_spec("torch") is not None else []
    if find_spec("torch") is None:
        yield Sample(
            "cpu matmul bf16", skipped="torch is not installed, and ONNX Runtime has no bf16 on this processor"
        )
    elif not accelerators and seconds < _TORCH_SECONDS:
        yield Sample("cpu matmul bf16", skipped="too little time to load torch; leave out --quick")
    else:
        import torch

        torch.set_num_threads(threads)
        yield _torch_matmul(torch, "cpu", "cpu", "bf16", lambda: None)
    yield Sample("cpu matmul fp16", skipped="no engine here computes in fp16 on a processor: it is slow there")
    for name, device in accelerators:
        yield from _card(name, device)


# On the processor


def _processor(threads: int) -> Iterator[Item | Sample]:
    import numpy as np

    for kind in ("f32", "int8"):
        if find_spec("onnxruntime") is None:
            yield Sample(f"cpu matmul {kind}", skipped="onnxruntime is not installed")
        else:
            yield _grown(f"cpu matmul {kind}", partial(_session, kind, threads))
    source = np.ones(_COPY_BYTES, np.uint8)
    target = np.empty_like(source)
    yield Item("cpu copy", "GB/s", 2 * _COPY_BYTES / 1e9, lambda: np.copyto(target, source))


def _session(kind: str, threads: int, size: int) -> Callable[[], object]:
    import numpy as np
    import onnxruntime

    from lading_node.hardware.tiny_onnx import multiplication

    rng = np.random.default_rng(0)
    if kind == "f32":
        left, weights = (rng.standard_normal((size, size), np.float32) for _ in range(2))
    else:
        left = rng.integers(0, 256, (size, size), np.uint8)
        weights = rng.integers(-128, 128, (size, size), np.int8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    model = multiplication(size, weights.tobytes(), kind)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"a": left})


def _grown(name: str, make: Callable[[int], Callable[[], object]], largest: int = _LARGEST) -> Item:
    """The size doubles until one run fills half a sample: small ones measure the call, large ones waste the time."""
    size = 256
    while True:
        run = make(size)
        run()
        began = time.perf_counter()
        run()
        if size >= largest or time.perf_counter() - began > _SAMPLE_SECONDS / 2:
            return Item(name, "TOP/s" if name.endswith("int8") else "TFLOP/s", 2 * size**3 / 1e12, run)
        size *= 2


# On cards, through torch


def _accelerators() -> list[tuple[str, Any]]:
    import torch

    found: list[tuple[str, Any]] = []
    if torch.cuda.is_available():  # AMD's cards too, in a torch built for ROCm
        found += [(f"gpu{i}", torch.device("cuda", i)) for i in range(torch.cuda.device_count())]
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        found += [(f"xpu{i}", torch.device("xpu", i)) for i in range(torch.xpu.device_count())]
    if torch.backends.mps.is_available():
        found.append(("mps", torch.device("mps")))
    return found


def _card(name: str, device: Any) -> Iterator[Item | Sample]:
    import torch

    module = getattr(torch, device.type)

    def wait() -> Any:
        return module.synchronize(*(() if device.type == "mps" else (device,)))

    for kind in ("f32", "bf16", "fp16", "int8"):
        try:
            yield _torch_matmul(torch, name, device, kind, wait)
        except (RuntimeError, AttributeError, TypeError) as error:
            yield Sample(f"{name} matmul {kind}", skipped=" ".join(str(error).split())[:120])
    source = torch.ones(4 * _COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    yield Item(f"{name} copy", "GB/s", 8 * _COPY_BYTES / 1e9, lambda: (target.copy_(source), wait()))
    pinned = device.type != "mps"
    host = torch.ones(_COPY_BYTES, dtype=torch.uint8, pin_memory=pinned)
    there = torch.empty(_COPY_BYTES, dtype=torch.uint8, device=device)
    yield Item(f"{name} from host", "GB/s", _COPY_BYTES / 1e9, lambda: (there.copy_(host, non_blocking=True), wait()))


def _torch_matmul(torch: Any, name: str, device: Any, kind: str, wait: Callable[[], Any]) -> Item:
    def make(size: int) -> Callable[[], object]:
        if kind == "int8":
            left, right = (torch.ones(size, size, dtype=torch.int8, device=device) for _ in range(2))
            return lambda: (torch._int_mm(left, right), wait())
        type_ = {"f32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[kind]
        left, right = (torch.randn(size, size, device=device).to(type_) for _ in range(2))
        return lambda: (torch.matmul(left, right), wait())

    return _grown(f"{name} matmul {kind}", make, 4 * _LARGEST)


if __name__ == "__main__":
    sys.exit(main())
