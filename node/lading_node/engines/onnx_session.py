"""An ONNX graph in memory: opened from checked bytes, run, and its failures told apart. Owns onnxruntime."""

import os
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lading_node.engines.errors import EngineError, one_line
from lading_node.engines.port import FailureCode

# Before the import, or it phones home.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime as ort

VERSION = str(ort.__version__)
Array = NDArray[Any]


class OnnxSession:
    """`inputs` and `outputs` are what the graph declares: names, types and shapes."""

    def __init__(self, model: bytes, threads: int) -> None:
        """Raises EngineError. Threads and optimisation level are fixed: other levels differ in the last bits."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.log_severity_level = 4
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the binding's own classes derive from Exception only
            raise _told(error, "invalid_package", "The model does not load") from error
        self.inputs = self._session.get_inputs()
        self.outputs = self._session.get_outputs()

    def run(self, names: Sequence[str], feed: Mapping[str, Array], seconds: float = 0.0) -> list[Array]:
        """Ends itself after `seconds` (0: never), between two kernels. Raises EngineError."""
        options = ort.RunOptions()
        clock = threading.Timer(seconds, setattr, (options, "terminate", True)) if seconds else None
        try:
            if clock is not None:
                clock.start()
            return [np.asarray(value) for value in self._session.run(list(names), dict(feed), options)]
        except Exception as error:  # as above
            raise _told(error, "agent_error", "The model fails on this input") from error
        finally:
            if clock is not None:
                clock.cancel()


def _told(error: Exception, code: FailureCode, what: str) -> EngineError:
    text = str(error)
    if isinstance(error, MemoryError) or "bad_alloc" in text or "Failed to allocate" in text:
        return EngineError("resource_exhausted", "The model does not fit into the memory that the engine has.")
    return EngineError(code, f"{what}: {one_line(text, 300)}")
