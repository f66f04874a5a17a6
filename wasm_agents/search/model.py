"""Puts the embedding model's files beside the agent: those of agents/embed, built there if they are not yet."""

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
EMBED = HERE.parents[1] / "agents" / "embed"


def main() -> None:
    made = EMBED / "model"
    if not (made / "model.onnx").is_file():
        subprocess.run([sys.executable, str(EMBED / "build.py")], check=True)
    (HERE / "build").mkdir(exist_ok=True)
    for name in ("model.onnx", "tokenizer.json"):
        shutil.copyfile(made / name, HERE / "build" / name)
        print(HERE / "build" / name)


if __name__ == "__main__":
    main()
