"""Writes the model beside this script: that of agents/embed, with its weights in a file of their own.

ONNX Runtime maps such a file into memory where it would parse and copy one that is all in one piece, so that the agent
is ready sooner. The same weights, and the same bytes on every machine.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import onnx

HERE = Path(__file__).parent
SOURCE = HERE.parents[2] / "agents" / "embed"
# Smaller tensors stay with the graph.
LEAST_BYTES = 1024


def main() -> None:
    made = subprocess.run([sys.executable, str(SOURCE / "build.py")], check=False, stdout=subprocess.DEVNULL)
    if made.returncode:
        sys.exit(made.returncode)  # it has said why
    target = HERE / "model"
    target.mkdir(exist_ok=True)
    (target / "weights.bin").unlink(missing_ok=True)  # the library would append
    model = onnx.load(SOURCE / "model" / "model.onnx")
    onnx.convert_model_to_external_data(model, location="weights.bin", size_threshold=LEAST_BYTES)
    onnx.save_model(model, target / "model.onnx")
    shutil.copyfile(SOURCE / "model" / "tokenizer.json", target / "tokenizer.json")


if __name__ == "__main__":
    main()
