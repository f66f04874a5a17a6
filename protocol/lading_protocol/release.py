"""What a publisher signs about packages: that one is its own, which one is current, and which nobody should run.

Signed for the registry's domain. `issued` and `expires` are Unix seconds; a higher `sequence` replaces a lower one, so
that nobody can serve yesterday's pointer as today's.
"""

import msgspec

from lading_protocol.eip712 import U64, Addr, Bytes32, Domain, Signable, Signed, unpack
from lading_protocol.errors import BadMessage
from lading_protocol.ids import Address, AgentId, Digest
from lading_protocol.transcript import sha256

MAX_LIFE = 400 * 86400
MAX_SEQUENCE = 2**63 - 1


class PackageSignature(Signable, frozen=True):
    """The signer stands for this very package: its publisher, a co-owner, an auditor."""

    agent: Bytes32
    signer: Addr


class ReleasePointer(Signable, frozen=True):
    """The package that hosts of this lineage should run now. A publisher's sequence is the time in milliseconds."""

    lineage: Bytes32
    agent: Bytes32
    sequence: U64
    issued: U64
    expires: U64


class Yank(Signable, frozen=True):
    """A package that nobody should run any more. `reason` is the sha256 of the words beside it."""

    agent: Bytes32
    sequence: U64
    reason: Bytes32


SignedPointer = Signed[ReleasePointer]
SignedYank = Signed[Yank]


def point_to(lineage: Digest, agent: AgentId, now: float, life: int = MAX_LIFE - 3600) -> ReleasePointer:
    """The pointer that a publisher signs at Unix second `now`, good for `life` seconds."""
    return ReleasePointer(lineage, agent, int(now * 1000), int(now), int(now) + life)


class KnownPointer(msgspec.Struct, frozen=True):
    """A pointer whose signature was checked, and the bytes that others can check again."""

    pointer: ReleasePointer
    packed: bytes


def lineage(publisher: Address, name: str) -> Digest:
    """What the versions of one agent have in common."""
    return sha256(b"lading/lineage/1" + publisher + name.encode())


def check_pointer(packed: bytes, domain: Domain, publisher: Address, now: float) -> KnownPointer:
    """Raises BadMessage or BadSignature: not this publisher's, expired, or too long-lived."""
    signed = unpack(ReleasePointer, packed)
    pointer = signed.value
    if pointer.expires <= now:
        raise BadMessage("The release pointer has expired.")
    if pointer.expires > now + MAX_LIFE or pointer.issued > now + 3600 or pointer.sequence > MAX_SEQUENCE:
        raise BadMessage("The release pointer is dated wrongly.")
    signed.check(domain, publisher)
    return KnownPointer(pointer, packed)


def check_yank(packed: bytes, reason: str, domain: Domain, publisher: Address) -> Yank:
    """What says that its publisher took an agent back. Raises BadMessage or BadSignature."""
    signed = unpack(Yank, packed)
    if signed.value.reason != sha256(reason.encode()) or not reason.isprintable():
        raise BadMessage("The reason is not the one that was signed.")
    if signed.value.sequence > MAX_SEQUENCE:
        raise BadMessage("The yank is dated wrongly.")
    signed.check(domain, publisher)
    return signed.value


def check_package(packed: bytes, agent: AgentId, domain: Domain, publisher: Address) -> None:
    """That the publisher stands for the package. Raises BadMessage or BadSignature."""
    signed = unpack(PackageSignature, packed)
    if signed.value.agent != agent or signed.value.signer != publisher:
        raise BadMessage("The package's signature is for another package, or another signer's.")
    signed.check(domain, publisher)
