"""The answer of an agent that speaks in text: held to its budget and its stop rules, and handed on in work tokens.

Pure: text goes in as it comes, runs of ids come out as somebody takes them.
"""

import codecs
from collections.abc import Sequence
from typing import Literal

from lading_node.core.stops import overlap
from lading_protocol.work import PIECE, text_ids

_Decoder = codecs.getincrementaldecoder("utf-8")


class Answer:
    """One answer of at most `max_tokens` ids. `over` is set when the last of it was taken."""

    def __init__(self, stops: Sequence[str], max_tokens: int, count: int = 0) -> None:
        """`count` ids were given by earlier attempts."""
        self._stops = tuple(stops)
        self._left = max_tokens
        self._held = ""  # may be the beginning of a stop string
        self._clear = bytearray()
        self._hidden = 0  # how many bytes at the end of `clear` are a stop string: they are paid for, but not shown
        self._decoder = _Decoder("replace")
        self._ended = False
        self._cut = False
        self.count = count
        self.over: Literal["", "stop", "length"] = ""

    @property
    def full(self) -> bool:
        """Whether more text would change nothing."""
        return self._ended or len(self._clear) > PIECE * self._left

    @property
    def waiting(self) -> int:
        """How many ids can be taken."""
        return -(-len(self._clear) // PIECE) if self._ended else len(self._clear) // PIECE

    def feed(self, text: str) -> None:
        if self.full:
            return
        if not self._stops:
            self._add(text, "")
            return
        text = self._held + text
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            end, start = min(found)
            self._hidden = len(text[start:end].encode())
            self._add(text[:end], "")
            self._ended = True
            return
        keep = max((overlap(text, stop) for stop in self._stops), default=0)
        self._add(text[: len(text) - keep], text[len(text) - keep :])

    def end(self, cut: bool = False) -> None:
        """The agent has said all, or all that a limit of its own lets it say."""
        if not self._ended:
            self._add(self._held, "")
            self._ended = True
            self._cut = cut

    def take(self, most: int) -> tuple[list[int], str]:
        """The next ids, and the text that they release; none when nothing is there.

        Only the last id may be of less than PIECE bytes, so that the same answer has the same ids however it comes.
        """
        size = PIECE * min(most, self._left, self.waiting)
        if not size and self._left and not self._ended:
            return [], ""
        shown = max(0, len(self._clear) - self._hidden)
        data = bytes(self._clear[:size])
        del self._clear[:size]
        ids = text_ids(data)
        self._left -= len(ids)
        self.count += len(ids)
        if self._clear and not self._left:
            self.over = "length"
        elif self._ended and not self._clear:
            self.over = "length" if self._cut else "stop"
        return ids, self._decoder.decode(data[:shown], bool(self.over))

    def _add(self, text: str, held: str) -> None:
        """Beyond the budget one byte more is enough to know that the answer was longer."""
        self._held = held
        self._clear += text.encode()
        most = PIECE * self._left + 1
        if len(self._clear) > most:
            self._hidden = max(0, self._hidden - (len(self._clear) - most))
            del self._clear[most:]
