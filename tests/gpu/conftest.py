"""Checks that need a CUDA device and torch; elsewhere each one skips and says what is missing."""

import pytest


@pytest.fixture(scope="session")
def device() -> str:
    torch = pytest.importorskip("torch", reason="torch is not installed (the `torch` extra)")
    pytest.importorskip("transformers", reason="transformers is not installed (the `torch` extra)")
    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    return "cuda"
