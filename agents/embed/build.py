"""Builds the embedding agent's files beside this script, or in a folder of your choice: `python build.py [FOLDER]`."""

import hashlib
import sys
from pathlib import Path

from minilm_files import BuildError, model_bytes, source_folder, tokenizer_bytes


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "model"
    try:
        source = source_folder()
        files = {"model.onnx": model_bytes(source), "tokenizer.json": tokenizer_bytes(source)}
    except BuildError as error:
        sys.exit(f"error: {error}")
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
        print(f"{folder / name}  {len(data):,} bytes  sha256:{hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
