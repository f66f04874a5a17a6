"""The pieces of a vocabulary as a tree over their bytes, walked level by level by an automaton: what may follow.

Built once per model, when the first answer with a grammar is asked for. Pure; knows no tokenizer library.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lading_node.core.automaton import Automaton, Ids
from lading_node.core.json_bytes import DEAD, PLAIN, QUOTE, RAW_TEXT, TEXT

Mask = NDArray[np.bool_]

# A longer piece is never allowed under a grammar.
LONGEST = 128


class Vocabulary:
    """`size` ids; ids beyond `pieces`, `ends`, and ids without bytes stand for no text.

    Nodes of the tree are numbered level by level, so that the children of a node lie side by side; 0 is the root.
    """

    def __init__(self, size: int, pieces: Sequence[bytes], ends: Iterable[int]) -> None:
        self.size = size
        self.pieces = pieces
        self.ends = np.array(sorted(end for end in ends if 0 <= end < size), dtype=np.int32)
        skipped = set(self.ends.tolist())
        listed = enumerate(pieces[:size])
        usable = sorted((piece, i) for i, piece in listed if 0 < len(piece) <= LONGEST and i not in skipped)
        self._build([piece for piece, _ in usable])
        ids = np.array([i for _, i in usable], dtype=np.int32)
        order = np.argsort(self._last, kind="stable")
        # The tokens that end at node n are ids[starts[n] : starts[n + 1]].
        self._ids = ids[order]
        self._starts = np.searchsorted(self._last[order], np.arange(len(self._read) + 1)).astype(np.int32)

    def _build(self, pieces: list[bytes]) -> None:
        """`pieces` are sorted: those with a common beginning lie side by side."""
        sizes = np.fromiter(map(len, pieces), dtype=np.int32, count=len(pieces))
        text = np.frombuffer(b"".join(pieces), np.uint8)
        offsets = np.cumsum(sizes) - sizes
        at = np.zeros(len(pieces), dtype=np.int32)
        self._last = np.zeros(len(pieces), dtype=np.int32)
        live = np.arange(len(pieces))
        read: list[NDArray[np.uint8]] = [np.zeros(1, dtype=np.uint8)]
        firsts: list[NDArray[np.int64]] = []
        level = np.zeros(1, dtype=np.int32)
        while len(level):
            depth = len(firsts)
            live = live[sizes[live] > depth]
            here, parents = text[offsets[live] + depth], at[live]
            fresh = np.ones(len(live), dtype=np.bool_)
            fresh[1:] = (parents[1:] != parents[:-1]) | (here[1:] != here[:-1])
            made = int(level[-1]) + 1
            at[live] = made - 1 + np.cumsum(fresh)
            ended = live[sizes[live] == depth + 1]
            self._last[ended] = at[ended]
            # Where the children of each node of the level above begin.
            firsts.append(made + np.searchsorted(parents[fresh], level))
            read.append(here[fresh])
            level = np.arange(made, made + int(fresh.sum()), dtype=np.int32)
        self._read = np.concatenate(read)
        self._first = np.append(np.concatenate(firsts), len(self._read)).astype(np.int32)

    def walk(self, automaton: Automaton, nodes: Ids, states: Ids) -> Ids:
        """All nodes below `nodes` that can be reached, each of them in its own state to begin with."""
        reached = []
        while len(nodes):
            below, counts = self._below(nodes)
            after = automaton.follow(np.repeat(states, counts), self._read[below])
            alive = after >= 0
            nodes, states = below[alive], after[alive]
            reached.append(nodes)
        return np.concatenate([*reached, nodes])

    def within_string(self, place: int, *, raw: bool) -> "Within":
        """From a place within a string (json_bytes): what stays in it, and where it is closed."""
        table = np.frombuffer(b"".join(RAW_TEXT if raw else TEXT), np.uint8)
        nodes, places, letters = ROOT, np.array([place], dtype=np.int32), np.zeros(1, dtype=np.uint8)
        inside, closed = [], []
        while len(nodes):
            below, counts = self._below(nodes)
            read, places, letters = self._read[below], np.repeat(places, counts), np.repeat(letters, counts)
            outside = places == PLAIN
            over = outside & (read == QUOTE)
            closed.append((below[over], letters[over]))
            letters += outside
            places = table[places << 8 | read].astype(np.int32)
            alive = places != DEAD
            nodes, places, letters = below[alive], places[alive], letters[alive]
            inside.append((nodes, letters))
        stay, closes = (tuple(map(np.concatenate, zip(*found, strict=True))) for found in (inside, closed))
        ended = self._starts[stay[0] + 1] - self._starts[stay[0]]
        return Within(self.tokens(stay[0]), np.repeat(stay[1], ended), closes[0], closes[1])

    def _below(self, nodes: Ids) -> tuple[Ids, Ids]:
        """The children of all nodes in turn, and how many each has."""
        return _ranges(self._first, nodes)

    def tokens(self, nodes: Ids) -> Ids:
        """The ids that end at these nodes."""
        return self._ids[_ranges(self._starts, nodes)[0]]


class Within(NamedTuple):
    """Tokens that stay within a string, and the nodes that end with its closing quote; each with the characters that
    begin on the way."""

    tokens: Ids
    letters: NDArray[np.uint8]
    closed: Ids
    before: NDArray[np.uint8]


def _ranges(begins: Ids, at: Ids) -> tuple[Ids, Ids]:
    """For each i of `at` the numbers from begins[i] up to begins[i + 1], all in one row, and how many each gave."""
    first = begins[at]
    counts = begins[at + 1] - first
    total = np.cumsum(counts, dtype=np.int32)
    size = int(total[-1]) if len(total) else 0
    return np.repeat(first - total + counts, counts) + np.arange(size, dtype=np.int32), counts


ROOT = np.zeros(1, dtype=np.int32)
