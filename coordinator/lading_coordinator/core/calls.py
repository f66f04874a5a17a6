"""Finds the calls of functions in an answer as it comes: text goes in, what was said and called comes out. Pure.

An answer that is one call by its grammar is `{"name": ..., "arguments": {...}}`; elsewhere calls stand between
<tool_call> and </tool_call>, as Hermes writes them. What does not read as a call of a function that was offered is
text, word for word.
"""

import re
from collections.abc import Sequence
from enum import Enum
from typing import Any

import msgspec

from lading_protocol.nesting import deeper

OPEN, CLOSE = "<tool_call>", "</tool_call>"
MOST_HEAD = 1024
AT_ONCE = 4096
MAX_DEPTH = 128
_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\{)')
_MARK = re.compile(r'[\\"{}\[\]]')


class Said(msgspec.Struct, frozen=True):
    text: str


class Called(msgspec.Struct, frozen=True):
    """A call begins: the `at`-th of the answer."""

    at: int
    name: str


class Argued(msgspec.Struct, frozen=True):
    """More of the arguments' JSON of the call that began last."""

    at: int
    text: str


News = Said | Called | Argued


class _Phase(Enum):
    OUTSIDE = "outside"
    HEAD = "head"  # a call has begun, its name is not known yet
    WHOLE = "whole"  # its name does not come first: it is read when it is whole
    ARGUMENTS = "arguments"
    TAIL = "tail"


class CallReader:
    """One answer. `forced`: it is one call by its grammar. `count` is how many calls have begun."""

    def __init__(self, names: Sequence[str], *, forced: bool) -> None:
        self._names = frozenset(names)
        self._forced = forced
        self._phase = _Phase.HEAD if forced else _Phase.OUTSIDE
        self._held = ""
        self._whole: list[str] = []
        self._braces = _Braces()
        self._blank: str | None = ""  # white space that means nothing unless words follow; None after words
        self.count = 0

    def feed(self, text: str) -> list[News]:
        news: list[News] = []
        for at in range(
            0, len(text), AT_ONCE
        ):  # each step copies what is held: a long text of many calls would take long
            self._held += text[at : at + AT_ONCE]
            while self._advance(news):
                pass
        return news

    def close(self) -> list[News]:
        """The answer is over; a call that a stop string or a limit cut off is one where it reads."""
        news: list[News] = []
        if self._phase in (_Phase.HEAD, _Phase.WHOLE):
            self._read("".join([*self._whole, self._held]), news, closed=False)
        elif self._phase is _Phase.OUTSIDE:
            self._say(self._held, news)
        if self._blank and not self.count:
            news.append(Said(self._blank))
        self._held, self._phase = "", _Phase.TAIL
        return news

    def _advance(self, news: list[News]) -> bool:
        """One step; False when it takes more text to go on."""
        match self._phase:
            case _Phase.OUTSIDE:
                return self._outside(news)
            case _Phase.HEAD:
                return self._head(news)
            case _Phase.WHOLE:
                return self._gather(news)
            case _Phase.ARGUMENTS:
                return self._argue(news)
            case _Phase.TAIL:
                return self._skip()

    def _outside(self, news: list[News]) -> bool:
        before, mark, after = self._held.partition(OPEN)
        if mark:
            self._say(before, news)
            self._held, self._phase = after, _Phase.HEAD
            return True
        keep = _overlap(self._held, OPEN)
        self._say(self._held[: len(self._held) - keep], news)
        self._held = self._held[len(self._held) - keep :]
        return False

    def _head(self, news: list[News]) -> bool:
        found = _HEAD.match(self._held)
        name = _text(found[1]) if found else ""
        if found and name in self._names and found.end() <= MOST_HEAD:  # however the text is cut
            news.append(Called(self.count, name))
            self.count += 1
            self._held, self._phase = self._held[found.end() :], _Phase.ARGUMENTS
            self._braces = _Braces()
            return True
        if found or CLOSE in self._held or len(self._held) > MOST_HEAD:
            self._phase = _Phase.WHOLE
            return True
        return False

    def _gather(self, news: list[News]) -> bool:
        if not self._forced:
            inside, mark, after = self._held.partition(CLOSE)
            if mark:
                self._read("".join([*self._whole, inside]), news, closed=True)
                self._whole.clear()
                self._held, self._phase = after, _Phase.OUTSIDE
                return True
        keep = 0 if self._forced else _overlap(self._held, CLOSE)
        self._whole.append(self._held[: len(self._held) - keep])
        self._held = self._held[len(self._held) - keep :]
        return False

    def _argue(self, news: list[News]) -> bool:
        size = self._braces.feed(self._held)
        if given := self._held[:size]:
            news.append(Argued(self.count - 1, given))
        self._held = self._held[size:]
        if self._braces.depth == 0 and self._braces.begun:
            self._phase, self._blank = _Phase.TAIL, ""
            return True
        return False

    def _skip(self) -> bool:
        _, mark, after = self._held.partition(CLOSE)
        if self._forced or not mark:
            self._held = "" if self._forced else self._held[-len(CLOSE) :]
            return False
        self._held, self._phase = after, _Phase.OUTSIDE
        return True

    def _read(self, text: str, news: list[News], *, closed: bool) -> None:
        """A call that is whole, or else words."""
        call = _call(text)
        if call is not None and call[0] in self._names:
            news += [Called(self.count, call[0]), Argued(self.count, call[1])]
            self.count += 1
            self._blank = ""
        else:
            self._say(text if self._forced else OPEN + text + (CLOSE if closed else ""), news)

    def _say(self, text: str, news: list[News]) -> None:
        if self._blank is not None:
            text = self._blank + text
            self._blank = text if not text or text.isspace() else None
        if self._blank is None and text:
            news.append(Said(text))


class _Braces:
    """Follows JSON from its first brace to the one that closes it, over pieces cut anywhere."""

    def __init__(self) -> None:
        self.depth = 0
        self.begun = False
        self._inside = False
        self._skip = -1

    def feed(self, text: str) -> int:
        """How much of `text` belongs to the value."""
        for found in _MARK.finditer(text):
            at, mark = found.start(), found[0]
            if at == self._skip:
                continue
            if self._inside:
                if mark == "\\":
                    self._skip = at + 1
                self._inside = mark != '"'
            elif mark == '"':
                self._inside = True
            elif mark in "{[":
                self.depth += 1
                self.begun = True
            elif mark in "}]":
                self.depth -= 1
                if self.depth == 0:
                    return at + 1
        self._skip -= len(text)
        return len(text)


def _call(text: str) -> tuple[str, str] | None:
    """The name and the arguments' JSON of a call."""
    tree = read_json(text)
    if not isinstance(tree, dict) or not isinstance(tree.get("name"), str):
        return None
    given = tree.get("arguments", tree.get("parameters", {}))
    return tree["name"], given if isinstance(given, str) else msgspec.json.encode(given).decode()


def read_json(text: str) -> Any:
    """What an agent wrote as JSON; nothing where it is none, or nests deeper than anybody means."""
    data = text.encode()
    try:
        return None if deeper(data, MAX_DEPTH) else msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None


def _text(quoted: str) -> str:
    return str(read_json(quoted) or "")


def _overlap(text: str, mark: str) -> int:
    """How many last characters of `text` may be the beginning of `mark`."""
    return next((size for size in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:size])), 0)
