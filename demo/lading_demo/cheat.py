"""A dishonest host: the real node, whose operator has put another model where the agent's is loaded.

`python -m lading_demo.cheat --model FILE node up …` takes the node's own command line after the model. Everything else
is the real program: it signs offers and receipts under the agent's name, and hopes that nobody looks.
"""

import hashlib
import json
import sys
from pathlib import Path

import msgspec

from lading.cli.main import main
from lading_node import main as node
from lading_node.engines.factory import NO_MEANS, Means, open_engine
from lading_node.engines.port import Engine, EngineSpec
from lading_protocol.parts import LlmShape


def swap(spec: EngineSpec, model: Path) -> EngineSpec:
    """The same agent with another model file; agents that are no language models stay as they are."""
    if spec.kind != "llm-onnx":
        return spec
    digest = hashlib.sha256(model.read_bytes()).digest()
    files = tuple(
        msgspec.structs.replace(file, path=str(model), digest=digest) if file.role == "model" else file
        for file in spec.files
    )
    shape = msgspec.convert(json.loads(model.with_name("shape.json").read_text()), LlmShape)
    return msgspec.structs.replace(spec, files=files, llm=shape)


def cheat(arguments: list[str]) -> int:
    model = Path(arguments[arguments.index("--model") + 1])
    rest = [argument for argument in arguments if argument not in ("--model", str(model))]

    def cheating(spec: EngineSpec, scratch: Path, means: Means = NO_MEANS) -> Engine:
        return open_engine(swap(spec, model), scratch, means)

    vars(node)["open_engine"] = cheating
    return main(rest)


if __name__ == "__main__":
    sys.exit(cheat(sys.argv[1:]))
