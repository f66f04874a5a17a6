"""EIP-712 from one declaration: a signed struct is a frozen msgspec Struct whose field types name Solidity types.

The type string, the encoding, the digest and the wire form are all derived from it, so they cannot drift apart.
On the wire a struct is its ABI words (32 bytes a field, as hashed) and its signature: 65 bytes, but for receipts.
Payers sign and hosts verify a voucher a chunk, so what depends only on a class or a domain is worked out once.
"""

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Annotated, Any, Generic, NamedTuple, Self, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec.structs import astuple

from lading_protocol.errors import BadMessage, BadSignature
from lading_protocol.ids import Address, Digest, Signature
from lading_protocol.keys import PrivateKey, keccak256, recover
from lading_protocol.words import Layout, codec

S = TypeVar("S", bound="Signable")


class Sol(msgspec.Struct, frozen=True):
    """The Solidity type of a field."""

    name: str


U8 = Annotated[int, Sol("uint8")]
U32 = Annotated[int, Sol("uint32")]
U40 = Annotated[int, Sol("uint40")]
U64 = Annotated[int, Sol("uint64")]
U96 = Annotated[int, Sol("uint96")]
Bytes32 = Annotated[bytes, Sol("bytes32")]
Addr = Annotated[Address, Sol("address")]


class Domain(msgspec.Struct, frozen=True):
    """Where a signature counts: one contract on one chain."""

    chain_id: int
    contract: Address


@lru_cache(maxsize=64)
def separator(domain: Domain) -> bytes:
    kind = keccak256(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
    return keccak256(
        kind
        + keccak256(b"Lading")
        + keccak256(b"1")
        + domain.chain_id.to_bytes(32, "big")
        + domain.contract.rjust(32, b"\0")
    )


@lru_cache(maxsize=64)
def _prefix(domain: Domain) -> bytes:
    """What comes before the struct's hash in every digest of a domain."""
    return b"\x19\x01" + separator(domain)


class Signable(msgspec.Struct, frozen=True):
    """Base of every signed struct. Subclasses only declare fields."""

    def words(self) -> bytes:
        """ABI encoding of the fields: 32 bytes each, in order. Raises BadAmount when a number does not fit."""
        plan, values = _plan(type(self)), astuple(self)
        packed = plan.layout.pack(values)
        if packed is None:
            return b"".join([encode(value) for encode, value in zip(plan.encoders, values, strict=True)])
        return packed

    def digest(self, domain: Domain) -> Digest:
        return digest_of(type(self), self.words(), domain)

    def sign(self, domain: Domain, key: PrivateKey) -> "Signed[Self]":
        return Signed(self, key.sign_digest(self.digest(domain)))

    @classmethod
    def signer_of(cls, digest: Digest, signature: bytes, domain: Domain) -> Address:
        """Who signed the struct with this digest. Raises BadSignature."""
        return recover(digest, signature)

    @classmethod
    def takes(cls, size: int) -> bool:
        """Whether a signature can have so many bytes."""
        return size == 65

    @classmethod
    def from_words(cls, words: bytes) -> Self:
        """The inverse of `words`. Raises BadMessage unless encoding it again gives the same bytes."""
        decoders = _plan(cls).decoders
        if len(words) != 32 * len(decoders):
            raise BadMessage(f"A {cls.__name__} has {32 * len(decoders)} bytes, got {len(words)}.")
        return cls(*[decode(words[32 * i : 32 * i + 32]) for i, decode in enumerate(decoders)])


class Signed(msgspec.Struct, Generic[S], frozen=True):
    """A struct and the signature over it."""

    value: S
    signature: Signature

    def signer(self, domain: Domain) -> Address:
        """Who signed. Raises BadSignature."""
        return self.value.signer_of(self.value.digest(domain), self.signature, domain)

    def check(self, domain: Domain, expected: Address) -> None:
        """Raises BadSignature unless `expected` signed this value for this domain."""
        if self.signer(domain) != expected:
            raise BadSignature(f"The {type(self.value).__name__} is not signed by 0x{expected.hex()}.")

    def pack(self) -> bytes:
        return self.value.words() + self.signature


def read_field(kind: type[Signable], data: bytes, name: str) -> Any:
    """One field out of `Signed.pack`'s bytes, without reading the others. Raises BadMessage."""
    at = kind.__struct_fields__.index(name)
    word = data[32 * at : 32 * at + 32]
    if len(word) != 32:
        raise BadMessage(f"A signed {kind.__name__} is cut short ({len(data)} bytes).")
    return _plan(kind).decoders[at](word)


def digest_of(kind: type[Signable], words: bytes, domain: Domain) -> Digest:
    """That of a struct with these words."""
    return keccak256(_prefix(domain) + keccak256(_plan(kind).type_hash + words))


def check_packed(kind: type[Signable], data: bytes, domain: Domain, signer: Address) -> None:
    """Raises BadSignature unless `signer` signed the words that `Signed.pack`'s bytes begin with: for whoever knows
    what these must say, and reads nothing."""
    size = 32 * len(_plan(kind).decoders)
    if kind.signer_of(digest_of(kind, data[:size], domain), data[size:], domain) != signer:
        raise BadSignature(f"The {kind.__name__} is not signed by 0x{signer.hex()}.")


def unpack(kind: type[S], data: bytes) -> Signed[S]:
    """Read `Signed.pack`'s bytes. Checks shape, not who signed. Raises BadMessage."""
    size = 32 * len(_plan(kind).decoders)
    if not kind.takes(len(data) - size):
        raise BadMessage(f"A signed {kind.__name__} does not have {len(data)} bytes.")
    return Signed(kind.from_words(data[:size]), Signature(data[size:]))


@cache
def _fields(struct: type[Signable]) -> tuple[tuple[str, str], ...]:
    hints = get_type_hints(struct, include_extras=True)
    return tuple((name, _solidity(hints[name])) for name in struct.__struct_fields__)


def _solidity(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        for note in get_args(hint)[1:]:
            if isinstance(note, Sol):
                return note.name
    raise TypeError(f"{hint} does not name a Solidity type")


def _camel(name: str) -> str:
    head, *tail = name.split("_")
    return head + "".join(part.title() for part in tail)


@cache
def type_string(struct: type[Signable]) -> str:
    """For example `Voucher(address host,bytes32 terms,uint32 epoch,uint96 cumulative)`."""
    return f"{struct.__name__}({','.join(f'{kind} {_camel(name)}' for name, kind in _fields(struct))})"


@cache
def type_hash(struct: type[Signable]) -> bytes:
    return keccak256(type_string(struct).encode())


class _Plan(NamedTuple):
    """What signing needs to know of a struct's class."""

    type_hash: bytes
    layout: Layout
    encoders: tuple[Callable[[Any], bytes], ...]
    decoders: tuple[Callable[[bytes], Any], ...]


@cache
def _plan(struct: type[Signable]) -> _Plan:
    kinds = [kind for _, kind in _fields(struct)]
    codecs = [codec(kind) for kind in kinds]
    encoders, decoders = (tuple(each) for each in zip(*codecs, strict=True))
    return _Plan(type_hash(struct), Layout(kinds), encoders, decoders)
