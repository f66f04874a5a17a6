"""Trains the tokenizer and one model from a seed, for a fixed number of steps, and writes a Hugging Face folder.

    python -m chat_recipe.train {chat|small} OUT [--steps N]

Owns sizes, schedule and packing. One thread on purpose: more threads change the order of sums, and the machine may be
shared.
"""

import argparse
import itertools
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from . import markup
from .corpus import conversations

SEED = 20260
VOCABULARY = 1024
ROW = 512  # tokens of one packed row: also the longest context the model has seen
BATCH = 4
# An answer of a few tokens must be right; a story may be told in many ways and has a hundred tokens to learn from.
SHORT, SHORT_WEIGHT = 40, 3.0


@dataclass(frozen=True)
class Size:
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    steps: int
    muon_rate: float


SIZES = {
    "chat": Size(hidden=128, inner=352, layers=4, heads=4, kv_heads=2, steps=1500, muon_rate=0.012),
    "small": Size(hidden=64, inner=160, layers=3, heads=2, kv_heads=1, steps=1500, muon_rate=0.012),
}


def make_tokenizer() -> Tokenizer:
    talks = itertools.islice(conversations(SEED), 15_000)
    return markup.train_tokenizer((content for talk in talks for _, content in talk), VOCABULARY)


def rows(tokenizer: Tokenizer, seed: int) -> Iterator[tuple[list[int], list[float]]]:
    """Packed rows of ROW ids and their weights; a row starts at a conversation, only what the assistant says counts."""
    ids: list[int] = []
    weights: list[float] = []
    for talk in conversations(seed):
        more, lengths = markup.encode(tokenizer, talk)
        ids += more
        weights += [0.0 if not n else SHORT_WEIGHT if n <= SHORT else 1.0 for n in lengths]
        if len(ids) >= ROW:
            yield ids[:ROW], weights[:ROW]
            ids, weights = [], []


def make_model(size: Size) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=size.hidden,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=2 * ROW,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return LlamaForCausalLM(config).float()


def optimisers(model: LlamaForCausalLM, size: Size) -> list[torch.optim.Optimizer]:
    """Muon (kellerjordan.github.io/posts/muon) for the matrices of the layers, Adam for the embedding and the norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    muon = torch.optim.Muon(matrices, lr=size.muon_rate, momentum=0.95, weight_decay=0.01, adjust_lr_fn="original")
    return [muon, torch.optim.AdamW(rest, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0)]


def batch_of(stream: Iterator[tuple[list[int], list[float]]]) -> tuple[torch.Tensor, torch.Tensor]:
    ids, weights = zip(*itertools.islice(stream, BATCH), strict=True)
    return torch.tensor(ids), torch.tensor(weights)


def loss_of(model: LlamaForCausalLM, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean, in nats a token."""
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    each = F.cross_entropy(logits.reshape(-1, VOCABULARY), ids[:, 1:].reshape(-1), reduction="none")
    weight = weights[:, 1:].reshape(-1)
    return (each * weight).sum() / weight.sum()


def held_out_loss(model: LlamaForCausalLM, tokenizer: Tokenizer, batches: int = 20) -> float:
    stream = rows(tokenizer, SEED + 1_000_000)
    with torch.no_grad():
        return float(sum(loss_of(model, *batch_of(stream)).item() for _ in range(batches)) / batches)


def train(size: Size, tokenizer: Tokenizer, steps: int) -> LlamaForCausalLM:
    torch.manual_seed(SEED)
    model = make_model(size)
    print(
        f"{sum(p.numel() for p in model.parameters()):,} parameters, {steps} steps of {BATCH * ROW} tokens", flush=True
    )
    opts = optimisers(model, size)
    plans = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda s: min(1.0, (s + 1) / 30, (steps - s) / (0.5 * steps)))
        for o in opts
    ]
    stream = rows(tokenizer, SEED + 1)
    start, recent = time.monotonic(), []
    for step in range(1, steps + 1):
        loss = loss_of(model, *batch_of(stream))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for moving in (*opts, *plans):
            moving.step()
        model.zero_grad(set_to_none=True)
        recent.append(loss.item())
        if step % 50 == 0 or step == steps:
            print(
                f"step {step:5d}  loss {sum(recent) / len(recent):.4f}  {time.monotonic() - start:6.0f} s", flush=True
            )
            recent = []
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int)
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    size = SIZES[args.size]
    tokenizer = make_tokenizer()
    model = train(size, tokenizer, args.steps or size.steps)
    print(f"held-out loss {held_out_loss(model, tokenizer):.4f}")
    model.save_pretrained(args.out)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=markup.BOS, eos_token=markup.END, pad_token=markup.END
    )
    fast.chat_template = markup.JINJA
    fast.save_pretrained(args.out)
    (args.out / "recipe.json").write_text(
        json.dumps({"size": args.size, "seed": SEED, "steps": args.steps or size.steps}) + "\n"
    )


if __name__ == "__main__":
    main()
