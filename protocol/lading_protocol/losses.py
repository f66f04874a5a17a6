"""What a coordinator tells a host that asks why it gets work, or does not: the messages of one stream.

Only about the asking host: the link says who it is. Counts are of requests, prices decimal wei per 1,000 tokens.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from lading_protocol.messages import Code, Count
from lading_protocol.requests import Hash

WHY = "/lading/why/1"
MOST_AGENTS = 64
MOST_REASONS = 16
MOST_WORDS = 300


class _Wire(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


class AskWhy(_Wire, frozen=True, tag="ask_why"):
    """Why do I get work, or none?"""


class Reason(_Wire, frozen=True):
    """Requests that went elsewhere for one reason, and the last one's in words."""

    code: Code
    count: Count
    words: Annotated[str, Meta(max_length=MOST_WORDS)]


class Account(_Wire, frozen=True):
    """Of `jobs` requests for an agent in the last `seconds`, `won` went to the host. `price_in` and `price_out` are
    what the last one paid that did not ("" when none was)."""

    agent: Hash
    jobs: Count
    won: Count
    seconds: Count
    price_in: Code
    price_out: Code
    reasons: Annotated[tuple[Reason, ...], Meta(max_length=MOST_REASONS)]


class Why(_Wire, frozen=True, tag="why"):
    """For each agent that the host offers."""

    agents: Annotated[tuple[Account, ...], Meta(max_length=MOST_AGENTS)]
