"""What a stream tells a consumer that may go on elsewhere.

A consumer of one plain stream sends `x-lading-ids: 1`. The head says what the request came to mean here; before each
piece stands a comment, which no other reader of events sees, with the tokens that the piece is.
"""

from collections.abc import Sequence
from typing import NamedTuple

from lading.core.continued import Begun, Rest
from lading.dispatch import Ask
from lading_coordinator.core.wishes import Wishes
from lading_coordinator.errors import bad_request
from lading_protocol.ids import JobId, from_hex, to_hex
from lading_protocol.messages import EmbedRequest


class There(NamedTuple):
    """What a consumer has of one answer."""

    ids: tuple[int, ...] = ()
    proof: bytes = b""
    rest: Begun | None = None

    @property
    def whole(self) -> bool:
        return self.rest is not None and self.rest.finish != ""


_NOTHING = There()


def begun_of(wishes: Wishes, count: int, ids: int) -> Sequence[There]:
    """For each of `count` answers. Raises ApiError."""
    rest = wishes.rest
    if rest is None:
        emitted = wishes.emitted
        if emitted and count != 1:
            raise bad_request("Only one answer goes on with 'emitted'.", param="lading.emitted")
        return [There(emitted) if emitted else _NOTHING] * count
    if ids != 2:
        raise bad_request("The rest of an answer is told with the header x-lading-ids: 2.", param="lading")
    if len(rest.choices) != count:
        raise bad_request(f"'lading' has {len(rest.choices)} choices of {count}.", param="lading.choices")
    if all(one.finish for one in rest.choices):
        raise bad_request("Every choice of 'lading' has ended: nothing is left to be answered.", param="lading.choices")
    return [There(tuple(one.ids), one.proof, one) for one in rest.choices]


def named_by(rest: Rest) -> tuple[JobId, int]:
    """Whose names the events of an answer bear, and when it was created."""
    return JobId(from_hex(rest.job, 32)), rest.created


def meant(model: str, wishes: Wishes) -> str:
    """The agent that the model's name was when the answer began."""
    return model if wishes.rest is None else wishes.rest.agent


def pinned(asks: Sequence[Ask]) -> bytes:
    """What another gateway must be asked for so that it goes on with the same answer: header lines."""
    ask = asks[0]
    assert not isinstance(ask.request, EmbedRequest)
    agent, most = to_hex(ask.agent), ask.request.max_tokens
    return f"x-lading-ids: 1\r\nx-lading-agent: {agent}\r\nx-lading-max-tokens: {most}\r\n".encode()


def comment(first: int, ids: Sequence[int], piece: bytes) -> bytes:
    """A piece with its tokens: both arrive, or neither does."""
    told = f": tokens {first} {','.join(map(str, ids))}\n".encode()
    return told + (piece or b"\n")
