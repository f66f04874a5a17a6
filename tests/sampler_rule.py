"""The sampler's rule of docs/protocol.md written out plainly, token by token: what the fast one is compared with."""

from collections.abc import Callable, Collection, Sequence
from decimal import Decimal, localcontext

from lading_node.core.grammar import Grammar
from lading_node.core.sampler import exact_noise
from lading_protocol.messages import Sampler
from lading_protocol.schema import read_schema


def shaped(logits: Sequence[float], sampler: Sampler, prompt: Sequence[int], answer: Sequence[int]) -> list[float]:
    """Steps 1 to 3: bias, repetition, frequency and presence."""
    row = [float(value) for value in logits]
    for token, value in sampler.bias:
        row[token] = row[token] + value
    for token in range(len(row)):
        if token in prompt or token in answer:
            up = row[token] > 0
            row[token] = row[token] / sampler.repetition if up else row[token] * sampler.repetition
        if token in answer:
            row[token] = row[token] - sampler.frequency * answer.count(token)
            row[token] = row[token] - sampler.presence
    return row


def allowed(schema: bytes, pieces: Sequence[bytes], ends: Collection[int], answer: Sequence[int]) -> list[int]:
    """Step 4: the ids that may follow."""
    grammar = Grammar(read_schema(schema))
    state = grammar.start
    for token in answer:
        for byte in pieces[token]:
            state = grammar.step(state, byte)
    found = []
    for token, piece in enumerate(pieces):
        after = state
        for byte in piece:
            after = grammar.step(after, byte)
        if (None in state) if token in ends else (piece and after):
            found.append(token)
    return found


def choice(
    row: Sequence[float],
    t: int,
    sampler: Sampler,
    word: Callable[[int], int],
    among: Sequence[int] | None = None,
) -> int:
    """Steps 5 to 9: temperature, top-k, top-p, min-p, noise."""
    ids = list(range(len(row))) if among is None else list(among)
    if sampler.temperature == 0:
        return max(ids, key=lambda i: (row[i], -i))
    scaled = {i: float(row[i]) / sampler.temperature for i in ids}
    falling = sorted(ids, key=lambda i: (-scaled[i], i))
    if sampler.top_k:
        falling = falling[: sampler.top_k]
    with localcontext() as context:
        context.prec = 50
        weights = [Decimal(scaled[i] - scaled[falling[0]]).exp() for i in falling]
        if sampler.top_p < 1:
            target, mass, size = Decimal(sampler.top_p) * sum(weights), Decimal(0), 0
            while mass < target:
                mass, size = mass + weights[size], size + 1
            falling = falling[:size]
        falling = [i for i, weight in zip(falling, weights, strict=False) if weight >= Decimal(sampler.min_p)]
    scores = {i: scaled[i] + exact_noise(word(i)) for i in falling}
    return max(sorted(falling), key=lambda i: (scores[i], -i))
