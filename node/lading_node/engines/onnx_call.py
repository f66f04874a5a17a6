"""Calls of the `onnx` engine: any graph over named tensors, or a text classifier.

An operation whose input schema has a `text` and whose output schema lists its labels (`properties.label.enum`)
classifies: text goes through the agent's tokenizer, the last axis of the first output has one number a label. Any
other takes and gives the graph's own tensors (json_tensors.py).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from lading_node.engines.errors import EngineError
from lading_node.engines.json_tensors import TYPES, Slot, canonical, read_object, read_tensors, write_tensors
from lading_node.engines.onnx_session import OnnxSession
from lading_node.engines.tasks import Budget, Emission
from lading_protocol.messages import CallRequest, Streamed
from lading_protocol.parts import Operation

MAX_LABELS = 4096
_WORDS = ("input_ids", "attention_mask", "token_type_ids")


class OnnxCalls:
    """`task` is the whole of it; see tasks.Task."""

    def __init__(self, session: OnnxSession, operations: tuple[Operation, ...], tokenizer: Tokenizer | None) -> None:
        """Raises EngineError."""
        self._session = session
        self._operations = {one.name: one for one in operations}
        self._tokenizer = tokenizer
        self._inputs = [_slot(value) for value in session.inputs]
        self._outputs = [value.name for value in session.outputs]
        self._labels = {one.name: _labels(one) for one in operations if "text" in _properties(one.input)}
        if not self._labels:
            return
        if tokenizer is None or not {"input_ids"} <= {slot.name for slot in self._inputs} <= set(_WORDS):
            raise EngineError("invalid_package", "An operation takes text, and the model or its tokenizer does not.")
        tokenizer.no_truncation()
        tokenizer.no_padding()

    def task(self, request: Streamed, budget: Budget) -> Iterator[Emission]:
        """Raises EngineError."""
        if not isinstance(request, CallRequest) or request.operation not in self._operations:
            raise EngineError("invalid_request", "This agent does not do that.", hint="Read its manifest.")
        most = self._operations[request.operation].max_input
        if most and len(request.input) > most:
            why = f"The input has {len(request.input)} bytes; {request.operation} takes {most}."
            raise EngineError("invalid_request", why)
        labels = self._labels.get(request.operation)
        yield self._classified(request.input, labels) if labels else self._computed(request.input)

    def _computed(self, data: bytes) -> bytes:
        feed, packed = read_tensors(data, self._inputs)
        found = self._session.run(self._outputs, feed)
        for name, value in zip(self._outputs, found, strict=True):
            if value.dtype.name not in TYPES.values():
                raise EngineError("agent_error", f"The output {name} is {value.dtype.name}, which no answer can hold.")
        return write_tensors(dict(zip(self._outputs, found, strict=True)), packed)

    def _classified(self, data: bytes, labels: list[str]) -> bytes:
        tree = read_object(data)
        text = tree.get("text")
        if tree.keys() != {"text"} or not isinstance(text, str) or not text:
            raise EngineError("invalid_request", 'The input must be {"text": …} and nothing else.')
        assert self._tokenizer is not None
        ids = np.array([self._tokenizer.encode(text).ids])
        given = dict(zip(_WORDS, (ids, np.ones_like(ids), np.zeros_like(ids)), strict=True))
        feed = {slot.name: given[slot.name].astype(slot.dtype) for slot in self._inputs}
        (out,) = self._session.run(self._outputs[:1], feed)
        row = np.asarray(out, np.float64).reshape(-1)
        if len(row) != len(labels) or not np.isfinite(row).all():
            raise EngineError("agent_error", f"The model gives {row.shape[0]} numbers for {len(labels)} labels.")
        weights = np.exp(row - row.max())
        scores = [round(float(weight), 6) for weight in weights / weights.sum()]
        best = labels[int(row.argmax())]
        return canonical({"label": best, "scores": dict(zip(labels, scores, strict=True))})


def _slot(value: Any) -> Slot:
    """Raises EngineError."""
    if value.type not in TYPES:
        raise EngineError("invalid_package", f"The model's input {value.name[:60]!r} is a {value.type[:60]}.")
    return Slot(value.name, TYPES[value.type], tuple("" if one is None else one for one in value.shape))


def _properties(schema: dict[str, Any]) -> dict[str, Any]:
    found = schema.get("properties")
    return found if isinstance(found, dict) else {}


def _labels(operation: Operation) -> list[str]:
    """Raises EngineError."""
    label = _properties(operation.output).get("label")
    found = label.get("enum") if isinstance(label, dict) else None
    if not isinstance(found, list) or not 1 <= len(found) <= MAX_LABELS or not all(isinstance(x, str) for x in found):
        why = f"{operation.name} takes text, and its output schema does not list its labels."
        raise EngineError("invalid_package", why)
    if len(set(found)) != len(found):
        raise EngineError("invalid_package", f"A label of {operation.name} stands twice.")
    return found
