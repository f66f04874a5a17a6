"""A grammar's states as numbers, with a table of their moves that is filled as they are asked for.

Stepping threads one by one is slow; a move met before costs a look-up, and a whole level of a tree goes at once.
"""

import numpy as np
from numpy.typing import NDArray

from lading_node.core.grammar import IN_TEXT, Grammar, State
from lading_node.core.json_bytes import ALIKE

Ids = NDArray[np.int32]

DEAD = -1
_UNKNOWN = -2
# Between two tokens a table of more states than this is begun anew: 256 moves of 4 bytes each.
MAX_STATES = 1 << 12


class Automaton:
    def __init__(self, grammar: Grammar) -> None:
        self._grammar = grammar
        self.forget()

    def forget(self) -> None:
        """All numbers given out so far are void."""
        self._numbers: dict[State, int] = {}
        self._states: list[State] = []
        self._table = np.full((64, 256), _UNKNOWN, dtype=np.int32)

    @property
    def is_full(self) -> bool:
        return len(self._states) > MAX_STATES

    def number(self, state: State) -> int:
        """DEAD for the state without threads."""
        if not state:
            return DEAD
        found = self._numbers.get(state)
        if found is None:
            found = self._numbers[state] = len(self._states)
            self._states.append(state)
            if found >= len(self._table):
                self._table = np.concatenate([self._table, np.full_like(self._table, _UNKNOWN)])
        return found

    def state(self, number: int) -> State:
        return self._states[number] if number >= 0 else ()

    def step(self, number: int, byte: int) -> int:
        """Where one state goes with one byte."""
        if number < 0:
            return DEAD
        if self._table[number, byte] == _UNKNOWN:
            self._learn(number, byte)
        return int(self._table[number, byte])

    def follow(self, states: Ids, read: NDArray[np.uint8]) -> Ids:
        """Where each of `states` goes with its byte; DEAD where it is not allowed."""
        after = self._table[states, read]
        missing = after == _UNKNOWN
        if missing.any():
            for pair in np.unique(states[missing].astype(np.int64) << 8 | read[missing]).tolist():
                if self._table[pair >> 8, pair & 255] == _UNKNOWN:
                    self._learn(pair >> 8, pair & 255)
            after = self._table[states, read]
        return after

    def _learn(self, number: int, byte: int) -> None:
        state = self._states[number]
        after = self.number(self._grammar.step(state, byte))
        if all(thread is not None and thread[0][0] == IN_TEXT for thread in state):
            # Within a string whole classes of bytes do the same.
            self._table[number, np.frombuffer(ALIKE[byte], np.uint8)] = after
        else:
            self._table[number, byte] = after
