"""Adverts of hosts and notices of coordinators: how they are signed, and the rules by which anyone accepts one.

`now` is Unix seconds and comes from the caller.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from lading_protocol.eip712 import U64, Addr, Bytes32, Domain, Signable, Signed, unpack
from lading_protocol.errors import BadMessage
from lading_protocol.ids import AgentId, Digest, TermsId, Wei
from lading_protocol.keys import PrivateKey
from lading_protocol.messages import MAX_FRAME, Advert, CoordinatorDetail, Notice, OfferDetail, encode
from lading_protocol.pricing import Price
from lading_protocol.receipts import TIERS, Offer
from lading_protocol.transcript import sha256

MAX_LIFE = 24 * 3600
MAX_TOLD = 256


class CoordinatorAd(Signable, frozen=True):
    """A coordinator's signed notice of itself."""

    coordinator: Addr
    sequence: U64
    expires: U64
    detail: Bytes32


class KnownOffer:
    """An offer whose signature was checked. `id` is its EIP-712 digest.

    Every request asks several times for its host and price, so they lie here, and it is no Struct.
    """

    __slots__ = ("_price", "advert", "agent", "detail", "host", "id", "offer", "terms")

    def __init__(self, id: Digest, offer: Offer, detail: OfferDetail, advert: Advert) -> None:
        self.id: Final = id
        self.offer: Final = offer
        self.detail: Final = detail
        self.advert: Final = advert
        self.host: Final = offer.host
        self.agent: Final = AgentId(offer.agent)
        self.terms: Final = TermsId(offer.terms)
        self._price: Price | None = None  # few of very many are ever chosen

    @property
    def price(self) -> Price:
        if self._price is None:
            self._price = Price(Wei(self.offer.price_in), Wei(self.offer.price_out))
        return self._price

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, KnownOffer):
            return False
        mine, others = (
            (self.id, self.offer, self.detail, self.advert),
            (other.id, other.offer, other.detail, other.advert),
        )
        return mine == others

    def __hash__(self) -> int:
        return hash(self.id)


def make_advert(offer: Offer, detail: OfferDetail, domain: Domain, key: PrivateKey) -> Advert:
    """Sign an offer; its `detail` field is filled in here."""
    full = msgspec.structs.replace(offer, detail=sha256(encode(detail)))
    return Advert(full.sign(domain, key).pack(), detail)


def check_advert(advert: Advert, domain: Domain, now: float) -> KnownOffer:
    """Raises BadMessage or BadSignature: stale, too long-lived, altered, or not signed by its host."""
    signed = unpack(Offer, advert.offer)
    offer = signed.value
    _check_life(offer.expires, now, "offer")
    if offer.detail != sha256(encode(advert.detail)):
        raise BadMessage("The offer's detail was altered.")
    if advert.detail.tier not in TIERS:
        raise BadMessage(f"The offer names the unknown isolation tier {advert.detail.tier[:16]!r}.")
    if offer.slots == 0:
        raise BadMessage("The offer has no slots.")
    signed.check(domain, offer.host)
    return KnownOffer(offer.digest(domain), offer, advert.detail, advert)


def fitting(adverts: Sequence[Advert], head: int = 4096) -> tuple[Advert, ...]:
    """As many, from the first on, as one message carries with `head` bytes beside them."""
    told: list[Advert] = []
    size = 0
    for advert in adverts[:MAX_TOLD]:
        size += len(encode(advert))
        if size > MAX_FRAME - head:
            break
        told.append(advert)
    return tuple(told)


def make_notice(ad: CoordinatorAd, detail: CoordinatorDetail, domain: Domain, key: PrivateKey) -> Notice:
    full = msgspec.structs.replace(ad, detail=sha256(encode(detail)))
    return Notice(full.sign(domain, key).pack(), detail)


def check_notice(notice: Notice, domain: Domain, now: float) -> CoordinatorAd:
    """Raises BadMessage or BadSignature."""
    signed: Signed[CoordinatorAd] = unpack(CoordinatorAd, notice.ad)
    _check_life(signed.value.expires, now, "notice")
    if signed.value.detail != sha256(encode(notice.detail)):
        raise BadMessage("The notice's detail was altered.")
    signed.check(domain, signed.value.coordinator)
    return signed.value


def _check_life(expires: int, now: float, what: str) -> None:
    if expires <= now:
        raise BadMessage(f"The {what} has expired.")
    if expires > now + MAX_LIFE + 60:
        raise BadMessage(f"The {what} claims to live longer than a day.")
