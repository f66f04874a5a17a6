"""What an answer says in headers beside its body. A stream's head can only tell what is known before the first token;
the rest stands in its last event, and in the ledger under the job's id. No trailers: clients and proxies drop them.
"""

from collections.abc import Mapping, Sequence

from lading.dispatch import Ended, Started
from lading_coordinator.gateway.reply import Headers
from lading_protocol.ids import Address, JobId, to_hex
from lading_protocol.offers import KnownOffer

RECEIPTS = "/lading/v1/receipts/"


def at_end(ended: Sequence[Ended]) -> Headers:
    """Of a whole answer."""
    offers = {part.host: part.offer for one in ended for part in one.parts}
    cost = sum(one.cost for one in ended)
    return (*_jobs([one.job for one in ended]), *_hosts(offers), (b"x-lading-cost", b"%d" % cost))


def at_start(jobs: Sequence[JobId], started: Mapping[int, Started]) -> Headers:
    """Of a stream. No host is named where the first one dropped out before its first token."""
    return (*_jobs(jobs), *_hosts({one.host: one.offer for one in started.values()}))


def _jobs(jobs: Sequence[JobId]) -> Headers:
    """Lists where a reply has several jobs. The links are to be read once the answer is over."""
    ids = [to_hex(job) for job in jobs]
    return (
        (b"x-lading-job", ",".join(ids).encode()),
        (b"x-lading-receipt", ",".join(RECEIPTS + id for id in ids).encode()),
    )


def _hosts(offers: Mapping[Address, KnownOffer]) -> Headers:
    """Each host, and in the same order what it asks: wei for 1,000 tokens of the prompt and of the answer."""
    if not offers:
        return ()
    prices = [offer.price for offer in offers.values()]
    return (
        (b"x-lading-host", ",".join(map(to_hex, offers)).encode()),
        (b"x-lading-price-input", ",".join(str(price.input) for price in prices).encode()),
        (b"x-lading-price-output", ",".join(str(price.output) for price in prices).encode()),
    )
