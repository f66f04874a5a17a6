"""A BERT sentence encoder in plain numpy and float64, one sentence at a time and without padding."""

from collections.abc import Mapping, Sequence
from math import erf

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]
_erf = np.vectorize(erf)


def sentence_vector(
    weights: Mapping[str, NDArray[np.float32]], ids: Sequence[int], layers: int, heads: int, epsilon: float
) -> Reals:
    def weight(name: str) -> Reals:
        return weights[name].astype(np.float64)

    def dense(x: Reals, at: str) -> Reals:
        result: Reals = np.einsum("si,oi->so", x, weight(f"{at}.weight")) + weight(f"{at}.bias")
        return result

    def norm(x: Reals, at: str) -> Reals:
        centred = x - x.mean(-1, keepdims=True)
        result: Reals = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * weight(
            f"{at}.weight"
        ) + weight(f"{at}.bias")
        return result

    x = (
        weight("embeddings.word_embeddings.weight")[list(ids)]
        + weight("embeddings.position_embeddings.weight")[: len(ids)]
    )
    x = norm(x + weight("embeddings.token_type_embeddings.weight")[0], "embeddings.LayerNorm")
    for layer in range(layers):
        at = f"encoder.layer.{layer}"
        query, key, value = (
            dense(x, f"{at}.attention.self.{part}").reshape(len(ids), heads, -1) for part in ("query", "key", "value")
        )
        scores = np.einsum("qhd,khd->hqk", query, key) / np.sqrt(query.shape[-1])
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        seen = np.einsum("hqk,khd->qhd", shares, value).reshape(len(ids), -1)
        x = norm(x + dense(seen, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        inner = dense(x, f"{at}.intermediate.dense")
        inner = inner * 0.5 * (1 + _erf(inner / np.sqrt(2)))
        x = norm(x + dense(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    mean = x.mean(0)
    result: Reals = mean / np.sqrt((mean**2).sum())
    return result
