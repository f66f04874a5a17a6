"""Fills a torch model from safetensors files: each number goes from the file that is being hashed to its place."""

import re
from collections.abc import Iterable, Mapping, Sequence

from lading_node.engines.errors import EngineError
from lading_node.engines.port import AgentFile
from lading_node.engines.quiet_torch import torch
from lading_node.engines.tensors import Tensor, headers, stream

_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# A table that older files carry and every model computes by itself.
_COMPUTED = re.compile(r".*\.rotary_emb\.inv_freq")


def check(shapes: Mapping[str, tuple[int, ...]], files: Sequence[AgentFile], spare: Iterable[str] = ()) -> None:
    """Whether the files hold the tensors of `shapes`, each once, and no other but `spare` ones.

    Asked before memory is set aside. Raises EngineError.
    """
    found: set[str] = set()
    for file in files:
        for tensor in headers(file):
            if tensor.name in found:
                raise _bad(f"{tensor.name[:80]!r} stands in them twice")
            found.add(tensor.name)
            if _is_spare(tensor.name, spare):
                continue
            if tensor.name not in shapes:
                raise _bad(f"the model has no {tensor.name[:80]!r}")
            if tensor.shape != shapes[tensor.name]:
                raise _bad(f"{tensor.name[:80]!r} has the shape {tensor.shape}, and not {shapes[tensor.name]}")
    if lacking := sorted(shapes.keys() - found):
        raise _bad(f"{lacking[0]!r} is missing" + (f", and {len(lacking) - 1} more" if lacking[1:] else ""))


def fill(places: Mapping[str, torch.Tensor], files: Sequence[AgentFile], spare: Iterable[str] = ()) -> None:
    """Into tensors of any type and on any device. Raises EngineError when a file is not what the manifest names."""

    def take(tensor: Tensor, first: int, piece: memoryview) -> None:
        if not _is_spare(tensor.name, spare):
            put(places[tensor.name], tensor, first, piece)

    for file in files:
        stream(file, take)


def put(place: torch.Tensor, tensor: Tensor, first: int, piece: memoryview) -> None:
    numbers = torch.frombuffer(piece, dtype=_TYPES[tensor.dtype])
    place.view(-1)[first : first + len(numbers)].copy_(numbers)


def _is_spare(name: str, spare: Iterable[str]) -> bool:
    return name in spare or _COMPUTED.fullmatch(name) is not None


def _bad(why: str) -> EngineError:
    return EngineError("invalid_package", f"The weights are not those of the model in config.json: {why}.")
