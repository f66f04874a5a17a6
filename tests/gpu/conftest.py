"""Checks that need a CUDA device and torch; elsewhere each one skips and says what is missing.

LADING_GPU_REHEARSAL=1 runs what does not need the card itself on the processor, to find mistakes of the tests.
"""

import os

import msgspec
import pytest

from integration.engines import chat_agents
from lading_node.engines.port import EngineSpec

REHEARSAL = bool(os.environ.get("LADING_GPU_REHEARSAL"))


@pytest.fixture(scope="session")
def device() -> str:
    torch = pytest.importorskip("torch", reason="torch is not installed (the `torch` extra)")
    pytest.importorskip("transformers", reason="transformers is not installed (the `torch` extra)")
    if torch.cuda.is_available():
        return "cuda"
    if not REHEARSAL:
        pytest.skip("this machine has no CUDA device")
    return "cpu"


@pytest.fixture
def card(device: str) -> str:
    if device == "cpu":
        pytest.skip("a rehearsal on the processor")
    return device


@pytest.fixture(scope="session")
def chat(device: str, tmp_path_factory: pytest.TempPathFactory) -> EngineSpec:
    """The committed chat model for the torch engine, which may use the card."""
    spec = chat_agents.torch_chat(tmp_path_factory.mktemp("hf"))
    return msgspec.structs.replace(spec, device=device != "cpu", slots=16)


@pytest.fixture(scope="session", params=["f32", "bf16", "f16"])
def precise(request: pytest.FixtureRequest, chat: EngineSpec, device: str) -> EngineSpec:
    """In each precision of the torch engine on a card."""
    if (request.param, device) == ("f16", "cpu"):
        pytest.skip("the torch engine has no f16 on a processor")
    return msgspec.structs.replace(chat, precision=request.param)
