"""Accounts of jobs that ended, and a ledger for them with a clock that a test moves."""

import random
from pathlib import Path

import msgspec

from factories import NOW, chat_request, job_id, key, known_offer, network
from lading.dispatch import Ended, Part
from lading_coordinator.forgetting import Retention
from lading_coordinator.ledger import Ledger
from lading_coordinator.metrics import Metrics
from lading_coordinator.store import Store
from lading_protocol.ids import JOB_CHANCE, Address, JobId, Wei, new_job
from lading_protocol.messages import request_hash
from lading_protocol.receipts import Finish, Receipt, SignedReceipt

REQUEST = chat_request()


def receipt(job: JobId, attempt: int, first: int, count: int) -> SignedReceipt:
    offer = known_offer(key("host")).offer
    value = Receipt(
        job=job,
        attempt=attempt,
        request=request_hash(REQUEST),
        agent=offer.agent,
        terms=offer.terms,
        host=offer.host,
        signer=key("session").address,
        epoch=0,
        first=first,
        prompt_tokens=4,
        output_tokens=count,
        prompt_hash=bytes(32),
        commitment=bytes(32),
        price_in=1,
        price_out=1,
        amount=1,
        finish=1,
        issued_at=int(NOW),
    )
    return value.sign(network().court_domain, key("host"))


def ended(label: str, *cuts: int) -> Ended:
    """A job whose attempts ended at these token counts."""
    job, parts, first = job_id(label), [], 0
    for attempt, count in enumerate(cuts):
        signed = receipt(job, attempt, first, count).pack()
        parts.append(
            Part(key("host").address, known_offer(key("host")), attempt, first, count, Wei(10**30 + count), signed)
        )
        first += count
    return Ended(
        job=job,
        request=REQUEST,
        agent=known_offer(key("host")).agent,
        payer=key("payer").address,
        signer=key("session").address,
        finish=Finish.STOP,
        prompt_tokens=4,
        prompt_hash=bytes(32),
        emitted=tuple(range(first)),
        vectors=b"",
        parts=tuple(parts),
    )


def again(done: Ended, now: float, chance: random.Random) -> Ended:
    """The same again as the gateway would name it, of a payer of its own and with a receipt like no other."""
    (part,) = done.parts
    other = msgspec.structs.replace(part, receipt=chance.randbytes(len(part.receipt)))
    job, signer = new_job(now, chance.randbytes(JOB_CHANCE)), Address(chance.randbytes(20))
    return msgspec.structs.replace(done, job=job, signer=signer, parts=(other,))


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


def opened(path: Path | str, clock: Clock | None = None) -> tuple[Store, Ledger]:
    store = Store(path)
    return store, Ledger(store, Metrics(), clock or Clock(), Retention(evidence=100, records=1000))
