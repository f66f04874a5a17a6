"""What an audit costs: bytes on the wire, milliseconds a token, and a prefill against generation; TOPLOC beside.

Processor seconds of this process, one thread: the machine may be shared.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from integration.engines import chat_agents
from lading_node.core import commit
from lading_node.core.sketch import directions, project
from lading_node.engines.load import language_model
from lading_node.engines.model import LanguageModel
from lading_node.engines.torch_lm import TorchLanguageModel, _widen_head
from lading_protocol.messages import Chunk
from lading_protocol.parts import LlmShape
from lading_protocol.sketches import chunk_means, errors
from lading_protocol.transcript import CHUNK_TOKENS, SKETCH_BYTES

from . import audit_toploc as toploc
from .audit_hosts import TOKENS
from .audit_timing import JOB, PROMPT, RATE, milliseconds, say_commitments, spent, states
from .report import say

# A model of 37 million parameters with random weights: what they are worth does not matter for time.
LARGE = LlmShape(layers=8, heads=8, kv_heads=4, head_size=64, hidden=512, vocab=16_384, eos=(1,), bos=0, pad=1)
LARGE_INNER = 1664


def report(quick: bool) -> None:
    rounds = 3 if quick else 15
    words = "the prompt's part included"
    say_commitments("audit_commitment_build", (128, 512, 1024, 4096), rounds, time.process_time, words)
    bytes_on_the_wire()
    # Before the package is loaded: it is an extension of torch, and times after it are not its own.
    prefill(3 if quick else 5)
    beside_toploc(rounds)


def bytes_on_the_wire() -> None:
    """What the marks add to the messages of a job whose receipts come chunk by chunk."""
    state = commit.sketched(commit.Commitment(JOB, 0), bytes(32))
    added, signed = 0, 0
    for at in range(0, TOKENS, CHUNK_TOKENS):
        state = commit.add(state, tuple(range(CHUNK_TOKENS)), bytes(CHUNK_TOKENS * SKETCH_BYTES))
        marks = b"".join(commit.marks_since(state, signed))
        signed = at + CHUNK_TOKENS
        added += len(msgspec.msgpack.encode(Chunk(b"", marks))) - len(msgspec.msgpack.encode(Chunk(b"")))
    theirs = sum(map(len, toploc.prove(states(512), PROMPT)))
    say(
        "audit_bytes_per_job",
        added,
        "bytes",
        reference=("TOPLOC, 258 a window of 32 and for the prompt", theirs),
        bar="<= 250",
        note=f"marks in {TOKENS // CHUNK_TOKENS} receipts; an audit opens {SKETCH_BYTES} bytes a token more",
    )


def beside_toploc(rounds: int) -> None:
    given = states(512)
    along = directions(JOB, 512)
    ours = _took(lambda: project(given, directions(JOB, 512)), rounds) / TOKENS
    own = project(given, along)
    check = _took(lambda: chunk_means(errors(own, project(given, along))), rounds) / TOKENS
    library = toploc.library()
    if library is None:
        proofs = toploc.prove(given, PROMPT)
        build = _took(lambda: toploc.prove(given, PROMPT), rounds) / TOKENS
        verify = _took(lambda: toploc.apart(given, PROMPT, proofs), rounds) / TOKENS
        words = "its scheme again, in numpy (the package does not load here; 0.02 to 0.06 ms published and measured)"
    else:
        rows = torch.from_numpy(given).bfloat16()
        steps = [rows[:PROMPT], *rows[PROMPT:]]
        proofs = library.build_proofs_bytes(steps, toploc.WINDOW, toploc.TOP)
        assert proofs == toploc.prove(given, PROMPT), "this scheme is not the package's"
        build = _took(lambda: library.build_proofs_bytes(steps, toploc.WINDOW, toploc.TOP), rounds) / TOKENS
        verify = _took(lambda: library.verify_proofs_bytes(steps, proofs, toploc.WINDOW, toploc.TOP), rounds) / TOKENS
        words = "the package"
    say("audit_sketch_build", ours, "ms/token", reference=(f"TOPLOC, {words}", build), n=rounds, note="512 wide")
    say("audit_sketch_check", check, "ms/token", reference=(f"TOPLOC, {words}", verify), n=rounds, note="512 wide")


def prefill(rounds: int) -> None:
    """An audit against generation one at a time, by the node's own engines."""
    with tempfile.TemporaryDirectory() as folder:
        chat = language_model(chat_agents.onnx_chat(), Path(folder))
        _against("chat", chat, rounds, "")
        large = _large()
        count = sum(p.numel() for p in large._model.parameters())
        _against(
            "large", large, rounds, f"{count / 1e6:.0f} M parameters, random, bf16 with its last projection in f32"
        )


def _large() -> TorchLanguageModel:
    config = LlamaConfig(
        vocab_size=LARGE.vocab,
        hidden_size=LARGE.hidden,
        intermediate_size=LARGE_INNER,
        num_hidden_layers=LARGE.layers,
        num_attention_heads=LARGE.heads,
        num_key_value_heads=LARGE.kv_heads,
        tie_word_embeddings=True,
    )
    torch.manual_seed(1)
    model: Any = LlamaForCausalLM(config).bfloat16().eval()
    _widen_head(model)
    words: Any = language_model(chat_agents.onnx_chat(), Path(tempfile.mkdtemp()))._chat
    return TorchLanguageModel(model, words, LARGE, "cpu", "torch-bf16-cpu")


def _against(name: str, model: LanguageModel, rounds: int, note: str) -> None:
    prompt = [2 + i % 900 for i in range(PROMPT)]
    took = spent(model, prompt, rounds, rounds, time.process_time)
    made, passed, whole = took.made, took.passed, took.whole
    ratio = made / passed
    bar = ">= 15" if name == "large" else None
    words = (
        f"{note}; generation {made:.3g} ms a token, prefill {passed:.3g}"
        if note
        else f"generation {made:.3g} ms a token"
    )
    say(f"audit_prefill_{name}", ratio, "times cheaper", bar=bar, n=rounds, note=words)
    say(
        f"audit_share_{name}",
        100 * RATE * whole / made,
        "% of generation",
        bar="<= 0.5",
        n=rounds,
        note=f"prefill, margins and sketch at an audit rate of {RATE:.0%}: {whole:.3g} ms a token that is audited",
    )


def _took(call: Callable[[], object], rounds: int) -> float:
    return milliseconds(call, rounds, time.process_time)
