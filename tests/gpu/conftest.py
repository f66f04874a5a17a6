"""Checks that need a CUDA device and torch; elsewhere each one skips and says what is missing."""

import os
import sys
from pathlib import Path

import pytest

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["ORT_GENAI_TELEMETRY_DISABLED"] = "1"

ROOT = Path(__file__).parents[2]
for folder in (ROOT / "agents" / "chat" / "recipe",):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@pytest.fixture(scope="session")
def device() -> str:
    torch = pytest.importorskip("torch", reason="torch is not installed (the `train` extra)")
    pytest.importorskip("transformers", reason="transformers is not installed (the `train` extra)")
    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    return "cuda"
