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

STATES = "hidden_states"


def show_states(model: onnx.ModelProto) -> None:
    """Give the graph one more output: what its last norm gives its head. Audits compare sketches of it."""
    graph = model.graph
    made_by = {name: node for node in graph.node for name in node.output}
    head = made_by["logits"]
    norm = made_by[head.input[0]]
    norm.output[list(norm.output).index(head.input[0])] = STATES
    head.input[0] = STATES
    (logits,) = (output for output in graph.output if output.name == "logits")
    batch, length = (each.dim_param or each.dim_value for each in logits.type.tensor_type.shape.dim[:2])
    (scale,) = (each for each in graph.initializer if each.name == norm.input[-1])
    shape = [batch, length, scale.dims[0]]
    graph.output.append(onnx.helper.make_tensor_value_info(STATES, onnx.TensorProto.FLOAT, shape))


def single_file(folder: Path) -> bytes:
    """The model of a builder's folder with its weights inside, as the same bytes for the same weights."""
    model = onnx.load(folder / "model.onnx")
    show_states(model)
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
