"""An answer that may come from several gateways, one after the other: what is here, and how to ask for the rest.

A gateway tells beside each piece which tokens it is, in a comment of the event stream. Piece and tokens count together
or not at all, so the next gateway is asked to go on exactly behind the text that was handed out. Pure.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

_TOLD = re.compile(r": tokens (\d+) (\d+(?:,\d+)*)")


class Continued:
    """`ids` are the tokens whose text was handed out."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self._pins: dict[str, Any] = {}
        self._pending: tuple[int, list[int]] | None = None
        self._given = 0
        self._untold = False

    @property
    def begun(self) -> bool:
        """Whether a part of the answer was handed out, so that asking again would repeat it."""
        return bool(self.ids) or self._untold

    @property
    def able(self) -> bool:
        """Whether another gateway can go on: it is known which tokens all that was handed out is."""
        return not self._untold and (not self.ids or bool(self._pins))

    @property
    def given(self) -> int:
        """How many tokens the gateway that is asked now was told of."""
        return self._given

    def body(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What to ask a gateway for; for one that comes later, only the rest of the same answer."""
        self._given, self._pending = len(self.ids), None
        if not self.ids:
            return dict(asked)
        return {**asked, **self._pins, "lading": {"emitted": self.ids}}

    def head(self, headers: Mapping[str, str]) -> None:
        """The head of a stream: which agent the model's name was, and how many tokens the answer may have."""
        agent, most = headers.get("x-lading-agent"), headers.get("x-lading-max-tokens", "")
        if not self._pins and agent and most.isdigit():
            self._pins = {"model": agent, "max_tokens": int(most)}

    def line(self, line: str) -> dict[str, Any] | None:
        """A line of the stream; the event, if it is one. Raises msgspec.DecodeError, ValueError for what none sends."""
        if told := _TOLD.fullmatch(line):
            self._pending = int(told[1]), [int(one) for one in told[2].split(",")]
            return None
        if line.startswith("data: ") and line != "data: [DONE]":
            event = msgspec.json.decode(line[6:])
            self._take(event)
            return event if isinstance(event, dict) else {}
        if not line:
            self._keep()
        return None

    def _take(self, event: Any) -> None:
        if self._pending is not None:
            self._keep()
        elif any(choice["delta"].get("content") for choice in event.get("choices", ())):
            self._untold = True

    def _keep(self) -> None:
        if self._pending is None:
            return
        first, ids = self._pending
        if first != len(self.ids):
            raise ValueError(f"it sent token {first} where {len(self.ids)} is next")
        self.ids += ids
        self._pending = None
