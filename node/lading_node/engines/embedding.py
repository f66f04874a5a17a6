"""The `onnx` engine: sentences to vectors through onnxruntime, one input at a time so that no neighbour changes a bit.

The graph takes input_ids and attention_mask (and token_type_ids, given as zeros) and returns one row a sentence, or one
a token, which is then averaged. Vectors are scaled to length 1.
"""

import numpy as np
from tokenizers import Tokenizer

from lading_node.engines.errors import EngineError, one_line
from lading_node.engines.onnx_session import VERSION, OnnxSession

_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}


class OnnxEmbedder:
    engine = "onnx"
    version = VERSION

    def __init__(self, model: bytes, tokenizer: Tokenizer, context: int, threads: int) -> None:
        """Raises EngineError."""
        self._session = OnnxSession(model, threads)
        self._inputs = {value.name for value in self._session.inputs}
        if not {"input_ids"} <= self._inputs <= _INPUTS:
            raise EngineError("invalid_package", f"The model's inputs are {one_line(sorted(self._inputs))}.")
        self._output = self._session.outputs[0].name
        self._tokenizer = tokenizer
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._context = context
        self.width = len(self.embed("a")[0]) // 4

    def embed(self, text: str) -> tuple[bytes, int]:
        """One vector as little-endian float32, and how many tokens the text has. Raises EngineError."""
        ids = self._tokenizer.encode(text).ids
        if not 0 < len(ids) <= self._context:
            raise EngineError(
                "context_exceeded",
                f"An input has {len(ids)} tokens; the agent's context is {self._context} tokens.",
                hint="Split the input.",
            )
        row = np.array([ids], dtype=np.int64)
        feed = {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}
        (out,) = self._session.run([self._output], {name: feed[name] for name in self._inputs})
        rows = np.asarray(out, dtype=np.float64)[0]
        vector = rows.mean(axis=0) if rows.ndim == 2 else rows
        norm = float(np.sqrt(np.square(vector).sum()))
        if not (vector.ndim == 1 and np.isfinite(norm) and norm > 0):
            raise EngineError("agent_error", f"The model gives no usable vector (shape {rows.shape}, length {norm}).")
        return (vector / norm).astype("<f4").tobytes(), len(ids)
