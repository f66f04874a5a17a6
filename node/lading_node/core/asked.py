"""What the settings of a sampler ask for, in the words of the API that they came from. Needs no numbers library."""

from collections.abc import Sequence
from itertools import pairwise

from lading_protocol.messages import Sampler


def shapes(sampler: Sampler) -> bool:
    """Whether rows need a Shaper at all."""
    return bool(sampler.bias or sampler.presence or sampler.frequency or sampler.repetition != 1 or sampler.grammar)


def extras(sampler: Sampler) -> tuple[str, ...]:
    """What is asked beyond temperature, top_p and seed, by the names that OpenAI's API or its servers have for it."""
    asked = {
        "top_k": sampler.top_k,
        "min_p": sampler.min_p,
        "presence_penalty": sampler.presence,
        "frequency_penalty": sampler.frequency,
        "repetition_penalty": sampler.repetition != 1,
        "logit_bias": sampler.bias,
        "response_format": sampler.grammar,
    }
    return tuple(name for name, value in asked.items() if value)


def bias_fault(bias: Sequence[tuple[int, float]], vocab: int = 2**32) -> str:
    """What is wrong with a bias, in words; "" when nothing is."""
    ids = [token for token, _ in bias]
    if any(one >= after for one, after in pairwise(ids)):
        return "The ids of the logit bias are not in rising order, each once."
    if ids and ids[-1] >= vocab:
        return f"The logit bias names the token {ids[-1]}; the vocabulary has {vocab}."
    return ""
