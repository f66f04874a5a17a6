"""Measures how far honest and cheating hosts lie behind the seeded sampler, and prints what the model answers.

    python -m chat_recipe.measure MODEL_FOLDER [NAME=CHEAT_FOLDER ...] [--jobs 40] [--tokens 120]

The experiment behind the audit's tolerance: hosts decode step by step, the auditor runs one prefill of the true model,
both through the node's own engine and sampler. Decides nothing.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import msgspec
import numpy as np
from tokenizers import Tokenizer

from lading_node.core.sampler import choose
from lading_node.engines.chat import Chat
from lading_node.engines.llm_onnx import OnnxLanguageModel
from lading_node.engines.model import LanguageModel, margins
from lading_protocol.messages import Sampler
from lading_protocol.parts import LlmShape

from . import corpus, markup

CONTEXT = 1024
LEVELS = (0.001, 0.01, 0.02, 0.05, 0.1)
SAMPLES = (
    "Tell me a story about a fox and a lantern",
    "What is 3 plus 4?",
    "What colour is the sky?",
    "Hello",
    "What is 10 - 6?",
    "Who are you?",
    "What do bees make?",
    "Explain quantum physics.",
    "What is the capital of France?",
    "Tell me a story about a robot and a violin.",
)


def open_model(folder: Path, beside: Path | None = None) -> OnnxLanguageModel:
    """The model of `folder` as a node loads it; a cheat's folder has no tokenizer and takes that of `beside`."""
    words = beside or folder
    shape = msgspec.json.decode((folder / "shape.json").read_bytes(), type=LlmShape)
    files = (words / "tokenizer.json").read_bytes(), (words / "chat_template.json").read_bytes()
    with tempfile.TemporaryDirectory() as scratch:
        chat = Chat(*files, shape, is_markup=True)
        return OnnxLanguageModel((folder / "model.onnx").read_bytes(), chat, shape, CONTEXT, 1, Path(scratch))


def sampler(n: int, temperature: float) -> Sampler:
    return Sampler(seed=n.to_bytes(32, "big"), temperature=temperature, top_p=1.0, top_k=0)


def answer(
    model: LanguageModel, prompt: Sequence[int], how: Sampler, limit: int, emitted: Sequence[int] = ()
) -> list[int]:
    """Output ids as a host decodes them, at most `limit`, those that another host has emitted already included."""
    out = list(emitted)
    run = model.open([*prompt, *out], limit - len(out))
    while len(out) < limit:
        out.append(choose(run.logits(), len(out), how))
        if out[-1] in model.ends:
            break
        if len(out) < limit:
            run.append(out[-1])
    return out


def prompts(tokenizer: Tokenizer, count: int) -> list[list[int]]:
    """Held-out conversations up to the last question; mostly stories, because they are long."""
    rng = Random(987_654)
    found: list[list[int]] = []
    while len(found) < count:
        messages = corpus.conversation(rng)[:-1]
        if "story" in messages[-1][1] or len(found) % 5 == 0:
            found.append(markup.prompt(tokenizer, messages))
    return found


@dataclass(frozen=True)
class Trial:
    """Jobs of one host: the largest margin of each, and how many of all tokens differ from the true model's choice."""

    worst: tuple[float, ...]
    tokens: int
    differ: int

    def share_above(self, level: float) -> float:
        return sum(margin > level for margin in self.worst) / len(self.worst)


def try_host(
    host: OnnxLanguageModel, auditor: OnnxLanguageModel, asks: Sequence[Sequence[int]], temperature: float, limit: int
) -> Trial:
    worst, tokens, differ = [], 0, 0
    for n, prompt in enumerate(asks):
        how = sampler(n, temperature)
        output = answer(host, prompt, how, limit)
        found = margins(auditor, prompt, output, 0, how)
        worst.append(max(found))
        tokens, differ = tokens + len(output), differ + sum(margin > 0 for margin in found)
    return Trial(tuple(worst), tokens, differ)


def show_answers(model: OnnxLanguageModel, tokenizer: Tokenizer) -> None:
    for n, question in enumerate(SAMPLES):
        for temperature in (0.0, 0.7, 1.0):
            prompt = markup.prompt(tokenizer, [("user", question)])
            output = answer(model, prompt, sampler(n, temperature), 250)
            end = "stops" if output[-1] in model.ends else "is cut"
            print(f"[T {temperature:g}] {question} -> {tokenizer.decode(output)} ({len(output)} tokens, {end})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("cheats", nargs="*", metavar="NAME=FOLDER")
    parser.add_argument("--jobs", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=120)
    args = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(args.folder / "tokenizer.json"))
    true = open_model(args.folder)
    show_answers(true, tokenizer)
    asks = prompts(tokenizer, args.jobs)
    named = [cheat.partition("=") for cheat in args.cheats]
    hosts = {"honest": true} | {name: open_model(Path(folder), args.folder) for name, _, folder in named}
    for name, host in hosts.items():
        for temperature in (1.0, 0.7, 0.0):
            trial = try_host(host, true, asks, temperature, args.tokens)
            figures = {"host": name, "temperature": temperature, "jobs": len(asks), "tokens": trial.tokens}
            figures |= {"differ": round(trial.differ / trial.tokens, 5), "largest": float(f"{max(trial.worst):.3g}")}
            figures |= {"median": float(f"{np.median(trial.worst):.3g}")}
            figures |= {f"jobs > {level:g}": trial.share_above(level) for level in LEVELS}
            print(json.dumps(figures))


if __name__ == "__main__":
    main()
