"""The project's own chat model for each engine that can run it, and prompts from its corpus.

The Hugging Face folder is made from the committed ONNX file, so there is one set of weights only.
"""

import hashlib
import sys
from pathlib import Path

import msgspec

from lading_node.engines.port import AgentFile, EngineSpec, Kind
from lading_protocol.parts import LlmShape

ROOT = Path(__file__).parents[3]
RECIPE = ROOT / "agents" / "chat" / "recipe"
if str(RECIPE) not in sys.path:
    sys.path.insert(0, str(RECIPE))

MODEL = ROOT / "agents" / "chat" / "model"
_WORDS = {"tokenizer.json": "tokenizer", "chat_template.json": "chat_template"}
_FILES: dict[Kind, dict[str, str]] = {
    "llm-onnx": {"model.onnx": "model"} | _WORDS,
    "torch": {"model.safetensors": "weights", "config.json": "config"} | _WORDS,
}


def onnx_chat() -> EngineSpec:
    return _spec("llm-onnx", MODEL)


def torch_chat(folder: Path) -> EngineSpec:
    """Writes the package's files to `folder`."""
    from chat_recipe import restore

    restore.write_folder(MODEL, folder)
    return _spec("torch", folder)


def prompts(count: int) -> list[list[int]]:
    from chat_recipe import measure
    from tokenizers import Tokenizer

    return measure.prompts(Tokenizer.from_file(str(MODEL / "tokenizer.json")), count)


def _spec(kind: Kind, folder: Path) -> EngineSpec:
    files = tuple(
        AgentFile(role, str(folder / name), hashlib.sha256((folder / name).read_bytes()).digest())
        for name, role in _FILES[kind].items()
    )
    shape = msgspec.json.decode((MODEL / "shape.json").read_bytes(), type=LlmShape)
    return EngineSpec(kind, files, shape, 1024)
