"""Which bytes may follow in a JSON value that a Plan describes, reading by reading. Pure; knows no vocabulary.

A **thread** is one reading of what was written so far: a frame, the thread that goes on when the frame is done, and how
many lists and objects are open; None is a whole value. Every thread can be finished, so of too many the first ones are
kept and still lead to a right value. docs/protocol.md, section 6, has the rule.
"""

from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from lading_node.core.json_bytes import (
    DEAD,
    ENDS,
    PLAIN,
    QUOTE,
    RAW_TEXT,
    TEXT,
    always_within,
    blank,
    can_reach,
    number_begin,
    number_step,
)
from lading_protocol.schema import MAX_DEPTH
from lading_protocol.shapes import Choice, Literals, Number, Plan, Rows, Table, Text, Whole

# A frame begins with its kind; the kind's own function knows the rest.
Frame = tuple[Any, ...]
Thread = tuple[Frame, Any, int] | None
State = tuple[Thread, ...]

MAX_THREADS = 16
IN_TEXT, IN_NUMBER, IN_WHOLE, IN_LITERAL, IN_NAME = "text", "number", "whole", "literal", "name"
_ROWS, _TABLE, _COLON, _VALUE = "rows", "table", "colon", "value"
# Where a list or an object stands: just opened, behind a value, behind a comma.
_OPENED, _BEHIND, _NEXT = 0, 1, 2
_COMMA = 0x2C
NO_END = -1


class Grammar:
    """How the values of one plan are written. `start` is the state before the first byte."""

    def __init__(self, plan: Plan) -> None:
        self._shapes = plan.shapes
        self._heights = plan.heights
        self._sorted: dict[int, list[tuple[bytes, int]]] = {}
        self._steps: dict[str, Callable[[Frame, Thread, int, int], list[Thread]]] = {
            IN_TEXT: self._in_text,
            IN_NUMBER: self._in_number,
            IN_WHOLE: self._in_whole,
            IN_LITERAL: self._in_literal,
            IN_NAME: self._in_name,
            _ROWS: self._in_rows,
            _TABLE: self._in_table,
            _COLON: self._at_colon,
            _VALUE: self._at_value,
        }
        self.start: State = (((_VALUE, plan.root, 0, True), None, 0),)

    def step(self, state: State, byte: int) -> State:
        """The state after one more byte; empty where the byte is not allowed."""
        found: dict[Thread, None] = {}
        for thread in state:
            if thread is None:
                continue
            frame, parent, depth = thread
            for after in self._steps[frame[0]](frame, parent, depth, byte):
                found[after] = None
        return tuple(found) if len(found) <= MAX_THREADS else tuple(found)[:MAX_THREADS]

    def _fits(self, shape: int, depth: int) -> bool:
        return depth + self._heights[shape] <= MAX_DEPTH

    def _begin(self, shape: int, parent: Thread, depth: int, byte: int) -> list[Thread]:
        """The first byte of a value."""
        if not self._fits(shape, depth):
            return []
        match self._shapes[shape]:
            case Choice(options):
                return [thread for option in options for thread in self._begin(option, parent, depth, byte)]
            case Text(least, most):
                return [text(least, NO_END if most is None else most, parent, depth)] if byte == QUOTE else []
            case Number():
                return _numbers(number_begin(byte), parent, depth)
            case Whole():
                if byte == 0x2D:
                    return self._whole((IN_WHOLE, shape, -1, 0, 0), parent, depth)
                return self._in_whole((IN_WHOLE, shape, 1, 0, 0), parent, depth, byte)
            case Literals():
                return self._in_literal((IN_LITERAL, shape, b""), parent, depth, byte)
            case Rows():
                return [((_ROWS, shape, 0, _OPENED, 0), parent, depth + 1)] if byte == 0x5B else []
            case Table():
                return [((_TABLE, shape, 0, _OPENED, 0), parent, depth + 1)] if byte == 0x7B else []

    def _in_text(self, frame: Frame, parent: Thread, depth: int, byte: int) -> list[Thread]:
        _, least, most, place, table = frame
        if place == PLAIN:
            if byte == QUOTE:
                return [parent] if least == 0 else []
            if most == 0:
                return []
            least, most = max(0, least - 1), most if most == NO_END else most - 1
        place = (RAW_TEXT if table else TEXT)[place][byte]
        return [] if place == DEAD else [((IN_TEXT, least, most, place, table), parent, depth)]

    def _in_number(self, frame: Frame, parent: Thread, depth: int, byte: int) -> list[Thread]:
        return _numbers(number_step(frame[1], byte), parent, depth)

    def _in_whole(self, frame: Frame, parent: Thread, depth: int, byte: int) -> list[Thread]:
        """`value` None: any digits do."""
        _, shape, sign, value, digits = frame
        if not 0x30 <= byte <= 0x39 or digits >= 18:
            return []
        digit = byte - 0x30
        if (digits == 0 and sign < 0 and digit == 0) or (digits and value == 0):
            return []
        value = None if value is None else value * 10 + digit
        return self._whole((IN_WHOLE, shape, sign, value, digits + 1), parent, depth)

    def _whole(self, frame: Frame, parent: Thread, depth: int) -> list[Thread]:
        kind, shape, sign, value, digits = frame
        bounds = self._shapes[shape]
        assert isinstance(bounds, Whole)
        low, high = bounds
        if digits == 0:
            return [(frame, parent, depth)] if low < 0 else []
        if value is None or always_within(digits, value, sign, low, high):
            return [((kind, shape, sign, None, digits), parent, depth), parent]
        if not can_reach(digits, value, sign, low, high):
            return []
        more: list[Thread] = [(frame, parent, depth)] if value and digits < 18 else []
        return [*more, parent] if low <= sign * value <= high else more

    def _in_literal(self, frame: Frame, parent: Thread, depth: int, byte: int) -> list[Thread]:
        kind, shape, begun = frame
        begun += bytes((byte,))
        words = self._words(shape)
        at = bisect_left(words, (begun, 0))
        whole = at < len(words) and words[at][0] == begun
        at += whole
        more = at < len(words) and words[at][0].startswith(begun)
        on: list[Thread] = [((kind, shape, begun), parent, depth)] if more else []
        return [*on, parent] if whole else on

    def _words(self, shape: int) -> list[tuple[bytes, int]]:
        """Literals or names in the order of their bytes, each with its place."""
        if shape not in self._sorted:
            one = self._shapes[shape]
            assert isinstance(one, Literals | Table)
            self._sorted[shape] = sorted((word, i) for i, word in enumerate(one[0]))
        return self._sorted[shape]

    def _in_rows(self, frame: Frame, parent: Thread, depth: int, byte: int) -> list[Thread]:
        kind, shape, count, where, space = frame
        rows = self._shapes[shape]
        assert isinstance(rows, Rows)
        can_end = where != _NEXT and count >= rows.least
        can_go = (rows.most is None or count < rows.most) and self._fits(rows.item(count), depth)
        if byte == 0x5D and can_end:
            return [parent]
        if where == _BEHIND:
            if byte == _COMMA and space == 0 and can_go:
                return [((kind, shape, count, _NEXT, 0), parent, depth)]
            return _spaced(frame, parent, depth, byte) if can_end else []
        if spaced := _spaced(frame, parent, depth, byte):
            return spaced
        if not can_go:
            return []
        # Beyond what is limited the number does not matter.
        most = max(rows.least, len(rows.first), rows.most or 0)
        behind: Thread = ((kind, shape, min(count + 1, most), _BEHIND, 0), parent, depth)
        return self._begin(rows.item(count), behind, depth, byte)

    def _in_table(self, frame: Frame, parent: Thread, depth: int, byte: int) -> list[Thread]:
        kind, shape, at, where, space = frame
        table = self._shapes[shape]
        assert isinstance(table, Table)
        can_end = where != _NEXT and True not in table.needed[at:]
        if byte == 0x7D and can_end:
            return [parent]
        if where == _BEHIND:
            if byte == _COMMA and space == 0 and self._can_go(table, at, depth):
                return [((kind, shape, at, _NEXT, 0), parent, depth)]
            return _spaced(frame, parent, depth, byte) if can_end else []
        if byte == QUOTE and self._can_go(table, at, depth):
            return self._name(shape, at, b'"', parent, depth)
        return _spaced(frame, parent, depth, byte)

    def _can_go(self, table: Table, at: int, depth: int) -> bool:
        """Whether another property may follow those before `at`."""
        return any(self._fits(table.values[i], depth) for i in _in_turn(table, at)) or self._others(table, at, depth)

    def _others(self, table: Table, at: int, depth: int) -> bool:
        return table.rest is not None and True not in table.needed[at:] and self._fits(table.rest, depth)

    def _in_name(self, frame: Frame, parent: Thread, depth: int, byte: int) -> list[Thread]:
        _, shape, at, begun = frame
        return self._name(shape, at, begun + bytes((byte,)), parent, depth)

    def _name(self, shape: int, at: int, begun: bytes, parent: Thread, depth: int) -> list[Thread]:
        """After the bytes `begun` of a quoted name. One that is not in the list is written without escapes, so that it
        cannot be another way to write one that is."""
        table = self._shapes[shape]
        assert isinstance(table, Table)
        turn = _in_turn(table, at)
        words = self._words(shape)
        first = bisect_left(words, (begun, 0))
        listed = wanted = False
        for word, i in words[first:]:
            if not word.startswith(begun):
                break
            listed = True
            wanted = i in turn and self._fits(table.values[i], depth)
            if word == begun:
                return [((_COLON, shape, i + 1, table.values[i]), parent, depth)] if wanted else []
            if wanted:
                break
        free: list[Thread] = []
        if self._others(table, at, depth):
            assert table.rest is not None
            colon: Thread = ((_COLON, shape, len(table.names), table.rest), parent, depth)
            free = self._free(begun, colon, depth, raw=bool(words))
        return [((IN_NAME, shape, at, begun), parent, depth)] if wanted or (listed and free) else free

    def _free(self, begun: bytes, colon: Thread, depth: int, *, raw: bool) -> list[Thread]:
        """A name of which only the text matters, as far as it was written."""
        threads = [text(0, NO_END, colon, depth, raw=raw)]
        for byte in begun[1:]:
            threads = [after for one in threads if one for after in self._in_text(one[0], one[1], depth, byte)]
        return threads

    def _at_colon(self, frame: Frame, parent: Thread, depth: int, byte: int) -> list[Thread]:
        _, shape, at, value = frame
        if byte != 0x3A:
            return []
        behind: Thread = ((_TABLE, shape, at, _BEHIND, 0), parent, depth)
        return [((_VALUE, value, 0, False), behind, depth)]

    def _at_value(self, frame: Frame, parent: Thread, depth: int, byte: int) -> list[Thread]:
        """Before a value; there is no white space before the outermost one."""
        kind, shape, space, outermost = frame
        written = DEAD if outermost else blank(space, byte)
        if written != DEAD:
            return [((kind, shape, written, outermost), parent, depth)]
        return self._begin(shape, parent, depth, byte)


def text(least: int, most: int, parent: Thread, depth: int, *, raw: bool = False) -> Thread:
    """A thread behind the quote that begins a string. `most` -1 is without an end."""
    return (IN_TEXT, least, most, PLAIN, raw), parent, depth


def _numbers(place: tuple[int, int] | None, parent: Thread, depth: int) -> list[Thread]:
    if place is None:
        return []
    frame: Thread = ((IN_NUMBER, place), parent, depth)
    return [frame, parent] if place[0] in ENDS else [frame]


def _spaced(frame: Frame, parent: Thread, depth: int, byte: int) -> list[Thread]:
    written = blank(frame[4], byte)
    return [] if written == DEAD else [((*frame[:4], written), parent, depth)]


def _in_turn(table: Table, at: int) -> range:
    """The properties that may come next: up to the first that must."""
    must = next((i for i in range(at, len(table.needed)) if table.needed[i]), len(table.needed) - 1)
    return range(at, must + 1)
