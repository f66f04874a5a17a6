"""What a consumer may say of an answer that OpenAI's API has no word for, or that says nothing about its content.

`"service_tier": "flex"`: it may wait. `"lading": {...}`: the consumer has a part of the answer already, from a gateway
that is gone, and the answer goes on behind it. Of one plain stream the output tokens are enough (`emitted`); of any
other it is what lading.core.continued.Rest says.
"""

from typing import Any

import msgspec

from lading.core.continued import Rest
from lading_coordinator.errors import bad_request
from lading_protocol.messages import MAX_TOKENS

MAX_ID = 2**32 - 1


class Wishes(msgspec.Struct, frozen=True):
    emitted: tuple[int, ...] = ()
    flex: bool = False
    rest: Rest | None = None


NONE, FLEX = Wishes(), Wishes(flex=True)


def read_wishes(tree: dict[str, Any]) -> Wishes:
    """Raises ApiError."""
    given = tree.get("lading")
    if given is None:
        return FLEX if tree.get("service_tier") == "flex" else NONE
    if isinstance(given, dict) and "choices" in given:
        return Wishes(flex=tree.get("service_tier") == "flex", rest=_rest(given))
    if not isinstance(given, dict) or set(given) - {"emitted"}:
        raise bad_request("'lading' takes only 'emitted'.", param="lading")
    ids = given.get("emitted") or []
    whole = isinstance(ids, list) and len(ids) <= MAX_TOKENS
    if not whole or not all(type(one) is int and 0 <= one <= MAX_ID for one in ids):
        raise bad_request(f"'lading.emitted' is a list of at most {MAX_TOKENS} token ids.", param="lading.emitted")
    if ids and not tree.get("stream"):
        raise bad_request("An answer goes on as a stream only: set 'stream'.", param="lading.emitted")
    if ids and (tree.get("tools") or tree.get("n") not in (None, 1)):
        raise bad_request("Only one answer without tools goes on with 'emitted'.", param="lading.emitted")
    return Wishes(tuple(ids), tree.get("service_tier") == "flex")


def _rest(given: dict[str, Any]) -> Rest:
    try:
        return msgspec.convert(given, Rest)
    except msgspec.ValidationError as error:
        raise bad_request(f"'lading' is not the rest of an answer: {error}.", param="lading") from error
