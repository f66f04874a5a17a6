"""What a client gives its caller, whichever way the request went."""

import msgspec

from lading_protocol.ids import Wei


class Model(msgspec.Struct, frozen=True):
    """An agent on offer. Prices are the lowest ones, in wei per 1,000 tokens; `devices` are what hosts say they use.

    `assurance` has what audits can hold them to (lading_protocol.audit.assurance), one word for each kind of host.
    """

    name: str
    agent: str
    hosts: int
    price_in: Wei
    price_out: Wei
    context: int
    operations: tuple[str, ...]
    devices: tuple[str, ...] = ()
    assurance: tuple[str, ...] = ()


class Delta(msgspec.Struct, frozen=True):
    """A piece of the answer's text."""

    text: str


class Notice(msgspec.Struct, frozen=True):
    """Something happened on the way that a person may want to see."""

    text: str


class Bill(msgspec.Struct, frozen=True):
    """The end of an answer. `cost` is in wei; `hosts` are 0x addresses, in the order they served."""

    finish: str
    prompt_tokens: int
    output_tokens: int
    cost: Wei
    job: str
    hosts: tuple[str, ...]


Piece = Delta | Notice | Bill


class Vectors(msgspec.Struct, frozen=True):
    vectors: tuple[tuple[float, ...], ...]
    bill: Bill
