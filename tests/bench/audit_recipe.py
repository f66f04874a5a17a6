"""Trains the audit benchmark's second model: a Starcoder2 on the corpus, the markup and the tokens of our chat model.
It learns what the user says too, so it goes on for ever, one exchange after the other.

    python -m tests.bench.audit_recipe OUT [--steps N]

Another architecture on purpose: layer norms, biases, a plain GELU between two matrices and a key for every query, where
the chat model has none of these. Its weights are kept as bf16, so that they fit into the repository.
"""

import argparse
import json
import os
import time
from pathlib import Path

import torch
from chat_recipe.train import SEED, VOCABULARY, batch_of, held_out_loss, loss_of, rows
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import Starcoder2Config, Starcoder2ForCausalLM

from . import ROOT

STEPS = 900
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 160,
    "intermediate_size": 640,
    "num_hidden_layers": 5,
    "num_attention_heads": 5,
    "num_key_value_heads": 5,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}


def optimisers(model: Starcoder2ForCausalLM) -> list[torch.optim.Optimizer]:
    """As for the chat model: Muon for the matrices of the layers, Adam for the rest."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    muon = torch.optim.Muon(matrices, lr=0.012, momentum=0.95, weight_decay=0.01, adjust_lr_fn="original")
    return [muon, torch.optim.AdamW(rest, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0)]


def train(tokenizer: Tokenizer, steps: int) -> Starcoder2ForCausalLM:
    torch.manual_seed(SEED)
    model = Starcoder2ForCausalLM(Starcoder2Config(**SHAPE)).float()
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {steps} steps", flush=True)
    every = optimisers(model)
    plans = [
        torch.optim.lr_scheduler.LambdaLR(one, lambda s: min(1.0, (s + 1) / 30, (steps - s) / (0.5 * steps)))
        for one in every
    ]
    stream, began = rows(tokenizer, SEED + 2), time.monotonic()
    for step in range(1, steps + 1):
        loss = loss_of(model, *_unweighted(batch_of(stream)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for moving in (*every, *plans):
            moving.step()
        model.zero_grad(set_to_none=True)
        if step % 50 == 0:
            print(f"step {step:5d}  loss {loss.item():.4f}  {time.monotonic() - began:6.0f} s", flush=True)
    return model


def _unweighted(batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    ids, weights = batch
    return ids, torch.ones_like(weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    tokenizer = Tokenizer.from_file(str(ROOT / "agents/chat/model/tokenizer.json"))
    model = train(tokenizer, args.steps)
    print(f"held-out loss {held_out_loss(model, tokenizer):.4f}")
    args.out.mkdir(parents=True, exist_ok=True)
    kept = {name: value.to(torch.bfloat16) for name, value in model.state_dict().items() if name != "lm_head.weight"}
    save_file(kept, args.out / "model.safetensors", metadata={"format": "pt"})
    names = {"architectures": ["Starcoder2ForCausalLM"], "model_type": "starcoder2"}
    (args.out / "config.json").write_text(json.dumps(names | SHAPE, indent=2) + "\n")


if __name__ == "__main__":
    main()
