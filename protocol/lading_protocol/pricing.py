"""What work costs. Integers of wei only; a price is wei per 1,000 tokens."""

from typing import Final

import msgspec

from lading_protocol.errors import BadAmount
from lading_protocol.ids import Wei
from lading_protocol.messages import CallRequest, EmbedRequest, Request, RichChat
from lading_protocol.work import task_prompt_size

PER: Final = 1000
# Markup around each message, and what a template may put before the first one (a date, a default system message).
MESSAGE_OVERHEAD: Final = 16
TEMPLATE_OVERHEAD: Final = 256
# Words around tools, and how much longer JSON can become when a template writes it with spaces and escapes.
TOOLS_OVERHEAD: Final = 1024
JSON_GROWTH: Final = 4
_latest: list[tuple[Request | None, int]] = [(None, 0)]


class Price(msgspec.Struct, frozen=True):
    """Wei per 1,000 prompt tokens and per 1,000 output tokens."""

    input: Wei
    output: Wei


def attempt_amount(price: Price, prompt_tokens: int, first: int, output_tokens: int) -> Wei:
    """What one attempt costs so far, rounded up once.

    The prompt is billed by the attempt that delivers the first output token (`first` == 0), so a stream that moves
    between hosts pays for it once.
    """
    prompt = prompt_tokens if first == 0 else 0
    total = price.input * prompt + price.output * output_tokens
    return Wei(-(-total // PER))


def prompt_bound(request: Request) -> int:
    """The most prompt tokens that a request can honestly have: no token is shorter than a byte."""
    known, bound = _latest[0]
    if known is not request:  # a job asks several times in a row
        bound = _bound_of(request)
        _latest[0] = request, bound
    return bound


def _bound_of(request: Request) -> int:
    if type(request) is EmbedRequest:
        return sum(_bytes_of(text) + MESSAGE_OVERHEAD for text in request.inputs)
    if type(request) is CallRequest:
        return task_prompt_size(request)
    bound = TEMPLATE_OVERHEAD
    for message in request.messages:
        bound += _bytes_of(message.content) + len(message.role) + MESSAGE_OVERHEAD
    return bound + _rich_bound(request) if type(request) is RichChat else bound


def _bytes_of(text: str) -> int:
    """In UTF-8; a prompt is asked for its size several times, so it is not written out for that where it is ASCII."""
    return len(text) if text.isascii() else len(text.encode())


def _rich_bound(request: RichChat) -> int:
    """What a RichChat can add to the prompt of its messages."""
    prompt = request.prompt.encode() if isinstance(request.prompt, str) else request.prompt or ()
    extra = len(request.tools) + sum(len(data) for _, data in request.turns)
    return len(prompt) + (TOOLS_OVERHEAD + JSON_GROWTH * extra if extra else 0)


def worst_case(request: Request, context: int) -> tuple[int, int]:
    """The most prompt and output tokens that a host with this context window can ever bill for.

    A host refuses what does not fit, so no more money need be bound to it, however long the request is.
    """
    if type(request) is EmbedRequest:
        return sum(min(_bytes_of(text) + MESSAGE_OVERHEAD, context) for text in request.inputs), 0
    return min(prompt_bound(request), context), min(request.max_tokens, context)


def parse_amount(text: str, decimals: int) -> Wei:
    """Read an amount a person typed ("12.5") into wei. Raises BadAmount; never rounds."""
    whole, _, fraction = text.strip().partition(".")
    if not (whole + fraction).isdecimal() or not (whole + fraction).isascii() or len(fraction) > decimals:
        raise BadAmount(f"{text!r} is not an amount with at most {decimals} decimals.", hint='Write it like "12.5".')
    return Wei(int(whole or "0") * 10**decimals + int(fraction.ljust(decimals, "0") or "0"))


def format_amount(amount: int, decimals: int, places: int | None = None) -> str:
    """Wei as a decimal number of tokens: exact, or cut (never rounded up) to `places`."""
    sign, value = ("-", -amount) if amount < 0 else ("", amount)
    told = str(value).rjust(decimals + 1, "0")
    point = len(told) - decimals
    digits = told[point:].rstrip("0") if places is None else told[point:][:places]
    return f"{sign}{told[:point]}.{digits}" if digits else f"{sign}{told[:point]}"
