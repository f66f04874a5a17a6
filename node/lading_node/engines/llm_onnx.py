"""The `llm-onnx` engine: a decoder-only ONNX model through onnxruntime-genai, which computes logits and nothing else.

Tokens are chosen by our own sampler. genai's configuration is written here from the manifest's numbers, never taken
from a package (it can name native code), and the model is loaded from the bytes whose digest was checked.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lading_node.core.sketch import States
from lading_node.engines.chat import Chat, Spoken
from lading_node.engines.errors import EngineError, one_line
from lading_node.engines.model import Advance, Logits
from lading_protocol.parts import LlmShape

# Before the import, or it phones home.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["ORT_GENAI_TELEMETRY_DISABLED"] = "1"
import onnxruntime_genai as genai

_FILE = "model.onnx"
# The graph's output with what its last norm gives, where it has one.
_STATES = "hidden_states"


class OnnxLanguageModel(Spoken):
    engine = "llm-onnx"
    version = str(genai.__version__)
    advance: Advance | None = None

    def __init__(self, model: bytes, chat: Chat, shape: LlmShape, context: int, threads: int, scratch: Path) -> None:
        """Raises EngineError. `scratch` is a folder of this process's own."""
        if not model:  # the library ends the process over it
            raise EngineError("invalid_package", "The model is an empty file.")
        self._chat = chat
        self.vocab = shape.vocab
        self.ends = shape.eos
        self.pieces = chat.pieces
        (scratch / "genai_config.json").write_text(json.dumps(_config(shape, context, threads)))
        config = genai.Config(str(scratch))
        config.add_model_data(_FILE, model)
        self.states = 0
        self._hidden = shape.hidden
        try:
            self._model = genai.Model(config)
            self._probe()
        except RuntimeError as error:
            raise EngineError("invalid_package", f"The model does not load: {one_line(error, 300)}") from error

    def _probe(self) -> None:
        context = self.open([self.ends[0]], 1)
        row = context.logits()
        if row.shape != (self.vocab,) or row.dtype != np.float32:
            raise EngineError(
                "invalid_package",
                f"The model gives logits of shape {row.shape} and type {row.dtype}; ({self.vocab},) float32 is needed.",
            )

        try:
            states = context.states()
        except RuntimeError:  # the graph does not name them: audits see its tokens alone
            return
        if states.shape != (1, self._hidden):
            why = f"The model gives {_STATES} of shape {states.shape}; (1, {self._hidden}) is needed."
            raise EngineError("invalid_package", why)
        self.states = self._hidden

    def open(self, ids: Sequence[int], room: int) -> "OnnxContext":
        return OnnxContext(self._generator(ids, len(ids) + room))

    def rows(self, ids: Sequence[int], count: int) -> Logits:
        """One prefill; the rows before the last `count` are computed by the model but not kept."""
        out: Logits = np.array(self._generator(ids, len(ids)).get_output("logits")[0, -count:], dtype=np.float32)
        return out

    def traced(self, ids: Sequence[int], count: int) -> tuple[Logits, States]:
        generator = self._generator(ids, len(ids))
        rows = np.array(generator.get_output("logits")[0, -count:], dtype=np.float32)
        return rows, _states(generator)

    def _generator(self, ids: Sequence[int], most: int) -> Any:
        parameters = genai.GeneratorParams(self._model)
        parameters.set_search_options(max_length=most, do_sample=False)
        generator = genai.Generator(self._model, parameters)
        generator.append_tokens(np.array(ids, dtype=np.int32))
        return generator


class OnnxContext:
    __slots__ = ("_generator", "_token")

    def __init__(self, generator: Any) -> None:
        self._generator = generator
        self._token = np.zeros(1, dtype=np.int32)

    def logits(self) -> Logits:
        row: Logits = self._generator.get_logits().reshape(-1)
        return row

    def states(self) -> States:
        return _states(self._generator)

    def append(self, token: int) -> None:
        self._token[0] = token
        self._generator.append_tokens(self._token)


def _states(generator: Any) -> States:
    return np.array(generator.get_output(_STATES)[0], dtype=np.float32)


def _config(shape: LlmShape, context: int, threads: int) -> dict[str, Any]:
    options = {"intra_op_num_threads": threads, "inter_op_num_threads": 1, "provider_options": []}
    pad = shape.eos[0] if shape.pad is None else shape.pad
    decoder = {
        "session_options": options,
        "filename": _FILE,
        "head_size": shape.head_size,
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }
    model = {
        "type": "llama",
        "bos_token_id": shape.eos[0] if shape.bos is None else shape.bos,
        "eos_token_id": shape.eos[0],
        "pad_token_id": pad,
        "vocab_size": shape.vocab,
        "context_length": context,
        "decoder": decoder,
    }
    search = {"max_length": context, "past_present_share_buffer": True, "do_sample": False}
    return {"model": model, "search": search}
