"""Which tokens of a vocabulary a JSON schema allows next, and how an answer goes on: the mask of a seeded choice.

`Masks` belongs to a model and keeps what was worked out, for all requests; a `Guide` is one answer. Deterministic, and
the same from the same ids, so an answer can go on elsewhere and be audited.
"""

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from lading_node.core.automaton import Automaton
from lading_node.core.grammar import IN_TEXT, NO_END, Grammar, State, Thread
from lading_node.core.vocabulary import LONGEST, ROOT, Mask, Vocabulary, Within
from lading_protocol.schema import read_schema

MAX_GRAMMARS = 8
MASK_BYTES = 1 << 24
MAX_MASKS = 1 << 12


class Masks:
    """Of one vocabulary. Holds at most MAX_GRAMMARS grammars, and MAX_MASKS masks in MASK_BYTES."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._automata: OrderedDict[bytes, Automaton] = OrderedDict()
        self._starts: dict[bytes, State] = {}
        self._kept: OrderedDict[tuple[bytes, State], NDArray[np.uint8]] = OrderedDict()
        self._most = max(16, min(MAX_MASKS, MASK_BYTES // (vocabulary.size // 8 + 1)))
        self._within: dict[tuple[int, bool], Within] = {}

    def guide(self, schema: bytes) -> "Guide":
        """A new answer. Raises BadSchema."""
        if schema not in self._automata:
            grammar = Grammar(read_schema(schema))
            self._automata[schema] = Automaton(grammar)
            self._starts[schema] = grammar.start
            if len(self._automata) > MAX_GRAMMARS:
                oldest, _ = self._automata.popitem(last=False)
                del self._starts[oldest]
        self._automata.move_to_end(schema)
        return Guide(self, schema, self._automata[schema], self._starts[schema])

    def mask(self, schema: bytes, automaton: Automaton, state: State) -> Mask:
        size = self.vocabulary.size
        key = (schema, state)
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = np.packbits(self._work_out(automaton, state))
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return np.unpackbits(kept, count=size).view(np.bool_)

    def _work_out(self, automaton: Automaton, state: State) -> Mask:
        mask = np.zeros(self.vocabulary.size, np.bool_)
        if None in state:
            mask[self.vocabulary.ends] = True
        if len(state) == 1 and state[0] is not None and state[0][0][0] == IN_TEXT:
            return self._in_string(automaton, state[0], mask)
        if state:
            number = np.array([automaton.number(state)], dtype=np.int32)
            mask[self.vocabulary.tokens(self.vocabulary.walk(automaton, ROOT, number))] = True
        return mask

    def _in_string(self, automaton: Automaton, thread: Thread, mask: Mask) -> Mask:
        """Most of a vocabulary may stand within a string, whatever is around it; so only what follows a closing quote
        within a token has to be walked for each state."""
        assert thread is not None
        (_, least, most, place, raw), outer, _ = thread
        if (place, raw) not in self._within:
            self._within[place, raw] = self.vocabulary.within_string(place, raw=raw)
        tokens, letters, closed, before = self._within[place, raw]
        if most != NO_END:
            tokens = tokens[letters <= most]
            closed, before = closed[before <= most], before[before <= most]
        if least:
            closed = closed[before >= least]
        mask[tokens] = True
        mask[self.vocabulary.tokens(closed)] = True
        behind = np.full(len(closed), automaton.number((outer,)), dtype=np.int32)
        mask[self.vocabulary.tokens(self.vocabulary.walk(automaton, closed, behind))] = True
        return mask


class Guide:
    """Where one answer stands. `mask` is over the vocabulary; an end token is allowed exactly at the end of a value."""

    def __init__(self, masks: Masks, schema: bytes, automaton: Automaton, start: State) -> None:
        self._masks = masks
        self._schema = schema
        self._automaton = automaton
        self._state = start

    def mask(self) -> Mask:
        if self._automaton.is_full:
            self._automaton.forget()
        return self._masks.mask(self._schema, self._automaton, self._state)

    def advance(self, token: int) -> None:
        """After a token that the mask does not allow, nothing is allowed any more."""
        pieces, vocabulary = self._masks.vocabulary.pieces, self._masks.vocabulary
        piece = pieces[token] if 0 <= token < len(pieces) else b""
        if not 0 < len(piece) <= LONGEST or token in vocabulary.ends:
            self._state = ()
            return
        automaton = self._automaton
        number = automaton.number(self._state)
        for byte in piece:
            number = automaton.step(number, byte)
        self._state = automaton.state(number)
