"""The committed chat model in torch, decoding token by token with a cache, on the device that the caller names."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch
from chat_recipe import restore
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM

from lading_node.core.sampler import choose
from lading_protocol.messages import Sampler
from lading_protocol.parts import LlmShape


class TorchHost:
    def __init__(self, folder: Path, device: str, dtype: torch.dtype = torch.float32) -> None:
        # TF32 keeps 10 bits of the mantissa: it is another numeric class, not f32.
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        shape = msgspec.json.decode((folder / "shape.json").read_bytes(), type=LlmShape)
        weights = restore.weights((folder / "model.onnx").read_bytes(), shape)
        inner = weights["model.layers.0.mlp.gate_proj.weight"].shape[0]
        model = LlamaForCausalLM(LlamaConfig(**restore.hf_config(shape, inner)))
        lacking = model.load_state_dict({name: torch.tensor(value) for name, value in weights.items()}, strict=False)
        assert set(lacking.missing_keys) <= {"lm_head.weight"}, "only the tied head may be left to the embedding"
        assert not lacking.unexpected_keys
        self._model = model.to(device=device, dtype=dtype).eval()
        self._device = device
        self._ends = shape.eos

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """All rows of one prefill."""
        with torch.no_grad():
            rows = self._model(torch.tensor([list(ids)], device=self._device)).logits[0]
        return np.asarray(rows.float().cpu().numpy(), np.float32)

    def answer(self, prompt: Sequence[int], sampler: Sampler, limit: int) -> list[int]:
        step, cache, out = list(prompt), None, list[int]()
        while len(out) < limit and (not out or out[-1] not in self._ends):
            ids = torch.tensor([step], device=self._device)
            with torch.no_grad():
                result = self._model(ids, past_key_values=cache, use_cache=True)
            cache = result.past_key_values
            step = [choose(result.logits[0, -1].float().cpu().numpy(), len(out), sampler)]
            out += step
        return out
