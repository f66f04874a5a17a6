"""The chat markup and the byte-level BPE tokenizer that carries it.

Owns the five control tokens and the rule that joins messages; the rule is also written as data in `model.json` and as
a Jinja template, and a test holds the three together. Contents are encoded so that a typed "<|end|>" stays plain
text.
"""

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from .corpus import Message

BOS, END = "<|bos|>", "<|end|>"
ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
CONTROL = (BOS, END, *ROLES.values())
JINJA = (
    "{{ '<|bos|>' }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    # Single digits: a small model adds better when every number is spelt the same way.
    pieces = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(pieces)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(CONTROL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def control_id(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"the tokenizer has no {token!r}")
    return int(found)


def encode(tokenizer: Tokenizer, messages: Sequence[Message]) -> tuple[list[int], list[int]]:
    """Token ids of a conversation, and for each the length of the answer it belongs to: 0 for what others write."""
    tokenizer.encode_special_tokens = True
    end = control_id(tokenizer, END)
    ids, own = [control_id(tokenizer, BOS)], [0]
    for role, content in messages:
        text = tokenizer.encode(content, add_special_tokens=False).ids
        ids += [control_id(tokenizer, ROLES[role]), *text, end]
        own += [0, *[len(text) + 1 if role == "assistant" else 0] * (len(text) + 1)]
    return ids, own


def prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """Token ids up to the point where the assistant begins to write."""
    return [*encode(tokenizer, messages)[0], control_id(tokenizer, ROLES["assistant"])]
