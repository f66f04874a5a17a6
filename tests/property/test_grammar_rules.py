"""What must hold for every schema and every answer: no dead end, nothing wrong, nothing right barred."""

import json
from random import Random
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import json_rules
from lading_node.core.grammar import MAX_THREADS, Grammar, State
from lading_node.core.mask import Guide, Masks
from lading_node.core.vocabulary import Vocabulary
from lading_protocol.schema import read_schema

_JOINED = ['{"', '":', '": ', '",', '", "', '"}', '"]', "}}", "]]", "[[", "[{", "true", "null", "12", "-1", ".5", "ab"]
_JOINED += ['"a', '"ab":', "é", "€", "\\u00", '\\"', "\n  ", ", ", "1, 2", "1]", "null}", '": "', "falsehood"]
PIECES = [bytes([i]) for i in range(256)] + [text.encode() for text in _JOINED]
PIECES += [b"\xe2\x82", b"\xa9a", b"", b'a"', b"a"]
END = len(PIECES)
SIZE = END + 3
MASKS = Masks(Vocabulary(SIZE, PIECES, (END, END + 1)))
# What brings an answer to its end.
_CLOSING = [PIECES.index(text) for text in (b"}", b"]", b'"', b":", b"0", b"1", b"a", b"e")]


def written(tree: Any) -> bytes:
    return json.dumps(tree).encode()


def plain_mask(grammar: Grammar, state: State) -> set[int]:
    """Token by token, byte by byte."""
    allowed = {END, END + 1} if None in state else set()
    for token, piece in enumerate(PIECES):
        after = state
        for byte in piece:
            after = grammar.step(after, byte)
        if piece and after:
            allowed.add(token)
    return allowed


def finish(rng: Random, guide: Guide, steps: int) -> tuple[list[int], bytes]:
    """An answer that follows the masks: at random for some steps, then towards its end. All that it must hold
    on the way is asserted."""
    ids: list[int] = []
    for at in range(3000):
        allowed = np.flatnonzero(guide.mask()).tolist()
        assert allowed, "a dead end"
        if at < steps:
            token = rng.choice(allowed)
        else:
            mine = frozenset(allowed)
            token = END if END in mine else rng.choice([one for one in _CLOSING if one in mine] or allowed)
        ids.append(token)
        if token >= END:
            return ids, b"".join(PIECES[i] for i in ids[:-1])
        guide.advance(token)
    raise AssertionError("the answer does not end")


SEEDS = st.integers(0, 2**32)


@settings(max_examples=150, deadline=None)
@given(SEEDS)
def test_whatever_follows_the_mask_ends_and_meets_the_schema(seed: int) -> None:
    rng = Random(seed)
    tree = json_rules.schema(rng)
    _, text = finish(rng, MASKS.guide(written(tree)), rng.choice([0, 5, 40, 150]))
    assert json_rules.meets(tree, json.loads(text)), (tree, text)


@settings(max_examples=200, deadline=None)
@given(SEEDS)
def test_no_value_that_meets_the_schema_is_barred(seed: int) -> None:
    """However it is cut into tokens, and with or without spaces."""
    rng = Random(seed)
    tree = json_rules.schema(rng)
    value = json_rules.value(rng, tree)
    spaced = rng.choice([(",", ":"), (", ", ": ")])
    fixed = "enum" in written(tree).decode()
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":") if fixed else spaced)
    guide = MASKS.guide(written(tree))
    left = text.replace("e+", "e").encode()
    while left:
        fit = [i for i, piece in enumerate(PIECES) if piece and left.startswith(piece)]
        token = rng.choice(fit)
        assert guide.mask()[token], (tree, text, left)
        guide.advance(token)
        left = left[len(PIECES[token]) :]
    assert guide.mask()[END], (tree, text)


@settings(max_examples=60, deadline=None)
@given(SEEDS)
def test_a_mask_is_what_trying_each_token_gives(seed: int) -> None:
    rng = Random(seed)
    data = written(json_rules.schema(rng))
    grammar, guide = Grammar(read_schema(data)), MASKS.guide(data)
    state = grammar.start
    for _ in range(12):
        allowed = plain_mask(grammar, state)
        assert set(np.flatnonzero(guide.mask()).tolist()) == allowed
        assert len(state) <= MAX_THREADS
        inner = sorted(token for token in allowed if token < END)
        if not inner:
            break
        token = rng.choice(inner)
        guide.advance(token)
        for byte in PIECES[token]:
            state = grammar.step(state, byte)


@settings(max_examples=40, deadline=None)
@given(SEEDS)
def test_more_readings_than_are_kept_still_end_well(seed: int) -> None:
    """Alternatives that begin alike, nested in each other: all but the first readings are dropped."""
    lists = [{"type": "array", "items": {"$ref": "#"}, "minItems": n % 2, "maxItems": n + 1} for n in range(6)]
    rng = Random(seed)
    guide = MASKS.guide(written({"anyOf": [*lists, {"type": "integer"}, {"type": "string", "maxLength": 4}]}))
    _, text = finish(rng, guide, rng.choice([10, 60]))
    waiting = [json.loads(text)]
    while waiting:
        one = waiting.pop()
        assert type(one) is int or len(one) <= (6 if isinstance(one, list) else 4)
        waiting += one if isinstance(one, list) else []


@given(SEEDS, st.lists(st.integers(-5, SIZE + 5), max_size=30))
@settings(deadline=None)
def test_after_a_token_that_is_not_allowed_nothing_is(seed: int, tokens: list[int]) -> None:
    guide = MASKS.guide(written(json_rules.schema(Random(seed))))
    alive = True
    for token in tokens:
        mask = guide.mask()
        assert mask.any() == alive
        alive = alive and 0 <= token < END and bool(mask[token])
        guide.advance(token)
