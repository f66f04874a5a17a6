"""Turns a trained Hugging Face folder into the agent's files: one ONNX file, tokenizer, chat markup as data, shape.

    python -m chat_recipe.export HF OUT [--precision fp32|int4] [--model-only]

Owns the call of onnxruntime-genai's model builder. Its genai_config.json is thrown away: that file can name native
code, so an engine writes its own from `shape.json`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx

from . import markup


def single_file(folder: Path) -> bytes:
    """The model of a builder's folder with its weights inside, as the same bytes for the same weights."""
    model = onnx.load(folder / "model.onnx")
    model.producer_name, model.producer_version = "lading", ""
    for node in model.graph.node:
        node.doc_string = ""
    del model.metadata_props[:]
    return model.SerializeToString(deterministic=True)


def build_onnx(hf: Path, precision: str) -> bytes:
    quiet = {"ORT_DISABLE_TELEMETRY": "1", "ORT_GENAI_TELEMETRY_DISABLED": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        builder = f"-m onnxruntime_genai.models.builder -o out -c cache -e cpu -p {precision} -i".split()
        command = [sys.executable, *builder, str(hf.resolve())]
        subprocess.run(command, cwd=folder, env=os.environ | quiet, check=True, stdout=sys.stderr)
        return single_file(folder / "out")


def shape_of(hf: Path) -> dict[str, object]:
    """What an engine must know of the model; the names are those of a manifest's `llm` field."""
    config = json.loads((hf / "config.json").read_text())
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    shape = {"layers": config["num_hidden_layers"], "heads": heads, "kv_heads": config["num_key_value_heads"]}
    shape |= {"head_size": hidden // heads, "hidden": hidden, "vocab": config["vocab_size"]}
    return shape | {"eos": [config["eos_token_id"]], "bos": config["bos_token_id"], "pad": config["pad_token_id"]}


def write_json(path: Path, tree: object) -> None:
    path.write_text(json.dumps(tree, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("hf", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--precision", choices=("fp32", "int4"), default="fp32")
    parser.add_argument("--model-only", action="store_true")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "model.onnx").write_bytes(build_onnx(args.hf, args.precision))
    write_json(args.out / "shape.json", shape_of(args.hf))
    if not args.model_only:
        (args.out / "tokenizer.json").write_bytes((args.hf / "tokenizer.json").read_bytes())
        write_json(args.out / "chat_template.json", {"bos": markup.BOS, "end": markup.END, "roles": markup.ROLES})


if __name__ == "__main__":
    main()
