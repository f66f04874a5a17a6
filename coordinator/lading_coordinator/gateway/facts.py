"""What an answer says in headers beside its body. A stream's head can only tell what is known before the first token;
the rest stands in its last event, and in the ledger under the job's id. No trailers: clients and proxies drop them.
"""

from collections.abc import Collection, Sequence

from lading.dispatch import Ended, Started
from lading_protocol.ids import Address, JobId
from lading_protocol.offers import KnownOffer

RECEIPTS = "/lading/v1/receipts/"


def at_end(ended: Sequence[Ended]) -> bytes:
    """Of a whole answer."""
    offers: dict[Address, KnownOffer] = {}
    cost = 0
    for one in ended:
        for part in one.parts:
            offers[part.host] = part.offer
            cost += part.amount
    return b"%b%bx-lading-cost: %d\r\n" % (_jobs([one.job for one in ended]), _hosts(offers), cost)


def at_start(jobs: Sequence[JobId], started: Collection[Started]) -> bytes:
    """Of a stream. No host is named where the first one dropped out before its first token."""
    return _jobs(jobs) + _hosts({one.host: one.offer for one in started})


def _jobs(jobs: Sequence[JobId]) -> bytes:
    """Lists where a reply has several jobs. The links are to be read once the answer is over."""
    ids = ["0x" + job.hex() for job in jobs]
    links = ",".join([RECEIPTS + id for id in ids])
    return f"x-lading-job: {','.join(ids)}\r\nx-lading-receipt: {links}\r\n".encode()


def _hosts(offers: dict[Address, KnownOffer]) -> bytes:
    """Each host, and in the same order what it asks: wei for 1,000 tokens of the prompt and of the answer."""
    if not offers:
        return b""
    hosts = ",".join(["0x" + host.hex() for host in offers])
    prices = [offer.price for offer in offers.values()]
    inputs = ",".join([str(price.input) for price in prices])
    outputs = ",".join([str(price.output) for price in prices])
    return f"x-lading-host: {hosts}\r\nx-lading-price-input: {inputs}\r\nx-lading-price-output: {outputs}\r\n".encode()
