"""What a consumer insists on, in headers that begin with x-lading-: any client can send them with any request."""

from collections.abc import Mapping
from typing import Final

import msgspec

from lading.core.matching import Filters
from lading_coordinator.errors import ApiError
from lading_protocol.ids import Wei
from lading_protocol.pricing import Price
from lading_protocol.receipts import TIERS

LEVELS = frozenset({"exact", "measured", "declared", "unverified"})
MOST_REGION = 64
MOST_DIGITS = 30
_OURS: Final = b"x-lading-"


class Insisted(msgspec.Struct, frozen=True):
    """`batch`: it may wait. `hedge`: a second host is asked where the first token is late. `ids`: tokens are told
    beside the text, 1: of one plain stream, 2: with all that another gateway needs to go on with any answer. Who asks
    for a form of a later version gets this one's, and the head of the answer says which."""

    batch: bool = False
    hedge: bool = False
    ids: int = 0
    max_price: Price | None = None
    filters: Filters = Filters()


NOTHING = Insisted()


def read_headers(headers: Mapping[bytes, bytes], usual: Insisted = NOTHING) -> Insisted:
    """`usual` is what holds without headers: where consumers are. Raises ApiError, which names the header."""
    given = {name: headers[name] for name in headers if name[: len(_OURS)] == _OURS}
    if not given:
        return usual
    return Insisted(
        batch=_one_of(given, "band", ("interactive", "batch")) == "batch",
        hedge=_one_of(given, "hedge", ("0", "1")) == "1",
        ids=_form(given, "ids", 2),
        max_price=_price(given),
        filters=Filters(
            tiers=_some_of(given, "tier", frozenset(TIERS[1:])),
            region=_region(given, "region"),
            near=_region(given, "near") or usual.filters.near,
            assurance=_some_of(given, "assurance", LEVELS),
        ),
    )


def _one_of(given: Mapping[bytes, bytes], name: str, words: tuple[str, ...]) -> str:
    """The first word when the header is not there."""
    said = _text(given, name).lower() or words[0]
    if said not in words:
        raise _bad(name, f"is {' or '.join(words)}")
    return said


def _form(given: Mapping[bytes, bytes], name: str, newest: int) -> int:
    """The newest form that both sides know; 0 when the header is not there."""
    said = _text(given, name) or "0"
    if not (said.isascii() and said.isdigit() and len(said) <= MOST_DIGITS):
        raise _bad(name, "is a whole number")
    return min(int(said), newest)


def _some_of(given: Mapping[bytes, bytes], name: str, words: frozenset[str]) -> frozenset[str]:
    said = frozenset(one.strip() for one in _text(given, name).split(",")) - {""}
    if not said <= words:
        raise _bad(name, f"is a list, separated by commas, of {', '.join(sorted(words))}")
    return said


def _region(given: Mapping[bytes, bytes], name: str) -> str:
    said = _text(given, name).lower()
    if said and (len(said) > MOST_REGION or not (said.isascii() and said.replace("-", "a").isalnum())):
        raise _bad(name, "is a region's name, like eu or us-east-1")
    return said


def _price(given: Mapping[bytes, bytes]) -> Price | None:
    """A limit on one of the two prices leaves the other free."""
    limits = [_text(given, name) for name in ("max-price-input", "max-price-output")]
    if not any(limits):
        return None
    if not all(len(one) <= MOST_DIGITS and ((one.isascii() and one.isdigit()) or not one) for one in limits):
        raise _bad("max-price-input", "and x-lading-max-price-output are wei for 1,000 tokens, a whole number")
    return Price(*(Wei(int(one or "9" * MOST_DIGITS)) for one in limits))


def _text(given: Mapping[bytes, bytes], name: str) -> str:
    return given.get(f"x-lading-{name}".encode(), b"").strip().decode("latin-1")


def _bad(name: str, rule: str) -> ApiError:
    return ApiError(400, "invalid_value", f"The header x-lading-{name} {rule}.", param=f"x-lading-{name}")
