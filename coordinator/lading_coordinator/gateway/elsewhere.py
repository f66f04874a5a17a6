"""What a stream tells a consumer that may go on elsewhere.

Such a consumer sends `x-lading-ids: 1`. The head says what the request came to mean here; before each piece stands a
comment, which no other reader of events sees, with the tokens that the piece is.
"""

from collections.abc import Sequence

from lading.dispatch import Ask
from lading_coordinator.gateway.reply import Headers
from lading_protocol.ids import to_hex
from lading_protocol.messages import EmbedRequest


def pinned(asks: Sequence[Ask]) -> Headers:
    """What another gateway must be asked for so that it goes on with the same answer."""
    ask = asks[0]
    assert not isinstance(ask.request, EmbedRequest)
    return ((b"x-lading-agent", to_hex(ask.agent).encode()), (b"x-lading-max-tokens", b"%d" % ask.request.max_tokens))


def comment(first: int, ids: Sequence[int], piece: bytes) -> bytes:
    """A piece with its tokens: both arrive, or neither does."""
    told = f": tokens {first} {','.join(map(str, ids))}\n".encode()
    return told + (piece or b"\n")
