"""What an answer says in headers beside its body. A stream's head can only tell what is known before the first token;
the rest stands in its last event, and in the ledger under the job's id. No trailers: clients and proxies drop them.
"""

from collections.abc import Collection, Sequence

from lading.dispatch import Ended, Started
from lading_coordinator.core.answer import Bill
from lading_protocol.ids import Address, JobId, to_hex
from lading_protocol.offers import KnownOffer

RECEIPTS = "/lading/v1/receipts/"


def at_end(ended: Sequence[Ended], bill: Bill) -> bytes:
    """Of a whole answer."""
    offers: dict[Address, KnownOffer] = {}
    for one in ended:
        for part in one.parts:
            offers[part.host] = part.offer
    return b"%b%bx-lading-cost: %d\r\n" % (_jobs(bill.jobs), _hosts(offers), bill.cost)


def at_start(jobs: Sequence[JobId], started: Collection[Started]) -> bytes:
    """Of a stream. No host is named where the first one dropped out before its first token."""
    return _jobs(jobs) + _hosts({one.host: one.offer for one in started})


def _jobs(jobs: Sequence[JobId]) -> bytes:
    """Lists where a reply has several jobs. The links are to be read once the answer is over."""
    ids = [to_hex(job) for job in jobs]
    told, links = ",".join(ids), f",{RECEIPTS}".join(ids)
    return f"x-lading-job: {told}\r\nx-lading-receipt: {RECEIPTS}{links}\r\n".encode()


def _hosts(offers: dict[Address, KnownOffer]) -> bytes:
    """Each host, and in the same order what it asks: wei for 1,000 tokens of the prompt and of the answer."""
    if not offers:
        return b""
    hosts, inputs, outputs = [], [], []
    for host, offer in offers.items():
        price = offer.price
        hosts.append(to_hex(host))
        inputs.append(str(price.input))
        outputs.append(str(price.output))
    who, asked, answered = ",".join(hosts), ",".join(inputs), ",".join(outputs)
    told = f"x-lading-host: {who}\r\nx-lading-price-input: {asked}\r\nx-lading-price-output: {answered}\r\n"
    return told.encode()
