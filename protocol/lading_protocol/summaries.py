"""What coordinators tell each other of the market: summaries of what each of them indexes, and quotes on demand.

A summary is a hint and says who to ask; a quote carries an offer that its host signed. Pure; `now` is Unix seconds.
"""

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from lading_protocol.eip712 import U64, Addr, Bytes32, Domain, Signable, Signed, unpack
from lading_protocol.errors import BadMessage
from lading_protocol.ids import Address
from lading_protocol.keys import PrivateKey
from lading_protocol.messages import Advert, Code, Count, Packed, encode
from lading_protocol.requests import Hash, Wire
from lading_protocol.transcript import sha256

TOPIC_SUMMARIES = "/lading/summaries/1"
QUOTES = "/lading/quotes/1"

MOST_STOCKS: Final = 128
MOST_PAGES: Final = 32
MOST_CORNERS: Final = 3
MOST_QUOTES: Final = 256
MOST_ELSEWHERE: Final = 4
# Bytes of a summary: gossip carries 64 KiB.
MAX_SUMMARY: Final = 60_000
# The longest that a summary may be believed, in seconds.
MAX_SUMMARY_LIFE: Final = 600
# A host's report is passed on for so long.
MAX_AGE_MS: Final = 5_000

Coins = Annotated[str, Meta(max_length=29, pattern=r"^([0-9]+)?$")]
Endpoint = Annotated[str, Meta(max_length=256)]
Endpoints = Annotated[tuple[Endpoint, ...], Meta(max_length=8)]


class SummaryAd(Signable, frozen=True):
    """A coordinator's word for one page of its summary."""

    coordinator: Addr
    sequence: U64
    expires: U64
    detail: Bytes32


class Stock(Wire, frozen=True):
    """What there is of one agent in one region: `hosts` that serve it, and `free` slots that they have left.

    `corners` are prices in and out, in decimal wei per 1,000 tokens, of real offers: the cheapest for long prompts,
    for long answers, and for both; of hosts with room where there are any. `kinds` are tiers and levels of assurance
    that occur, `context` the longest that a host has.
    """

    agent: Hash
    region: Code
    hosts: Count
    free: Count
    context: Count
    corners: Annotated[tuple[tuple[Coins, Coins], ...], Meta(max_length=MOST_CORNERS)]
    kinds: Annotated[tuple[tuple[Code, Code], ...], Meta(max_length=4)] = ()


class SummaryDetail(Wire, frozen=True):
    """What a SummaryAd's `detail` hash covers. `pages` is a power of two; an agent is on the page that is the remainder
    of its first two bytes by it."""

    endpoints: Endpoints
    page: Annotated[int, Meta(ge=0, le=MOST_PAGES - 1)]
    pages: Annotated[int, Meta(ge=1, le=MOST_PAGES)]
    stocks: Annotated[tuple[Stock, ...], Meta(max_length=MOST_STOCKS)]


class Summary(Wire, frozen=True, tag="summary"):
    """A SummaryAd, packed, and its detail."""

    ad: Packed
    detail: SummaryDetail


class WantQuotes(Wire, frozen=True, tag="want_quotes"):
    """Ask a coordinator for the best offers of an agent among the hosts that are linked to it.

    What is asked for costs `prompt` times the price in and `output` times the price out; the whole answer is `length`
    tokens long. `near`, `region`, `tiers`, `levels` (of assurance) and the price limit (`cap_in`, `cap_out`, empty for
    none) are the consumer's.
    """

    agent: Hash
    operation: Code
    prompt: Count
    output: Count
    length: Count
    near: Code = ""
    region: Code = ""
    tiers: Annotated[tuple[Code, ...], Meta(max_length=8)] = ()
    levels: Annotated[tuple[Code, ...], Meta(max_length=8)] = ()
    cap_in: Coins = ""
    cap_out: Coins = ""
    most: Annotated[int, Meta(ge=1, le=MOST_QUOTES)] = 16


class Quote(Wire, frozen=True):
    """An offer, and what its host reported `age_ms` ago, less what the coordinator sent it since."""

    advert: Advert
    free: Count
    waiting: Count
    age_ms: Annotated[int, Meta(ge=0, le=MAX_AGE_MS)]


class Quotes(Wire, frozen=True, tag="quotes"):
    """In no order. `elsewhere` are endpoints of other coordinators that say they have the agent, those of each."""

    quotes: Annotated[tuple[Quote, ...], Meta(max_length=MOST_QUOTES)]
    elsewhere: Annotated[tuple[Endpoints, ...], Meta(max_length=MOST_ELSEWHERE)] = ()


class KnownSummary(msgspec.Struct, frozen=True):
    """A page whose signature was checked."""

    ad: SummaryAd
    detail: SummaryDetail

    @property
    def coordinator(self) -> Address:
        return self.ad.coordinator


def page_of(agent: bytes, pages: int) -> int:
    return int.from_bytes(agent[:2], "big") % pages


def make_summary(ad: SummaryAd, detail: SummaryDetail, domain: Domain, key: PrivateKey) -> Summary:
    """Sign a page; the ad's `detail` field is filled in here."""
    full = msgspec.structs.replace(ad, detail=sha256(encode(detail)))
    return Summary(full.sign(domain, key).pack(), detail)


def read_ad(summary: Summary) -> SummaryAd:
    """What a page says of itself, unchecked: whether it is news is seen before its signature is. Raises BadMessage."""
    return unpack(SummaryAd, summary.ad).value


def check_summary(summary: Summary, domain: Domain, now: float) -> KnownSummary:
    """Raises BadMessage or BadSignature: stale, too long-lived, out of shape, altered, or not signed by its author."""
    signed: Signed[SummaryAd] = unpack(SummaryAd, summary.ad)
    ad, detail = signed.value, summary.detail
    if ad.expires <= now:
        raise BadMessage("The summary has expired.")
    if ad.expires > now + MAX_SUMMARY_LIFE + 60:
        raise BadMessage(f"The summary claims to live longer than {MAX_SUMMARY_LIFE} s.")
    if detail.pages & (detail.pages - 1) or detail.page >= detail.pages:
        raise BadMessage(f"The summary has no page {detail.page} of {detail.pages}.")
    if ad.detail != sha256(encode(detail)):
        raise BadMessage("The summary's detail was altered.")
    named = {(stock.agent, stock.region) for stock in detail.stocks}
    if len(named) < len(detail.stocks):
        raise BadMessage("The summary names a region of an agent twice.")
    if any(page_of(stock.agent, detail.pages) != detail.page for stock in detail.stocks):
        raise BadMessage("The summary names an agent that belongs on another page.")
    if any(not price for stock in detail.stocks for corner in stock.corners for price in corner):
        raise BadMessage("The summary names no price.")
    signed.check(domain, ad.coordinator)
    return KnownSummary(ad, detail)


def paged(stocks: Sequence[Stock]) -> list[tuple[Stock, ...]]:
    """The pages of a summary, as few as hold all. Of what is too much for the most pages, the stocks with the fewest
    free slots are left out."""
    pages = 1
    while True:
        made: list[list[Stock]] = [[] for _ in range(pages)]
        for stock in stocks:
            made[page_of(stock.agent, pages)].append(stock)
        if pages == MOST_PAGES or all(len(page) <= MOST_STOCKS and _size(page) <= MAX_SUMMARY for page in made):
            return [_fitting(page) for page in made]
        pages *= 2


def _fitting(page: list[Stock]) -> tuple[Stock, ...]:
    kept: list[Stock] = []
    size = 0
    for stock in sorted(page, key=lambda one: (-one.free, one.agent, one.region))[:MOST_STOCKS]:
        size += len(encode(stock))
        if size > MAX_SUMMARY - HEAD:
            break
        kept.append(stock)
    return tuple(sorted(kept, key=lambda one: (one.agent, one.region)))


# Of a summary without its stocks: the packed ad, and eight endpoints of the longest.
HEAD: Final = 3_000


def _size(page: list[Stock]) -> int:
    return HEAD + sum(len(encode(stock)) for stock in page)
