"""Canaries: receipts that look like any other and are false in a way that is written down beforehand. Pure.

Made from a request and an answer that were served for real, signed by an operator of the coordinator's own. The fault
is one that no sampler could have made, so that an auditor who calls it honest has not looked.
"""

import math
import struct

import msgspec

from lading_protocol.eip712 import Domain, Signed
from lading_protocol.ids import JOB_CHANCE, Signature, new_job
from lading_protocol.keys import PrivateKey
from lading_protocol.messages import Case, EmbedRequest
from lading_protocol.pricing import Price, attempt_amount
from lading_protocol.receipts import Finish, Offer, Receipt, SignedReceipt
from lading_protocol.sheaves import bind, place
from lading_protocol.transcript import SKETCH_BYTES, commitment, marks_of, sha256

# A run of the answer is turned round. So long and so varied that no honest margin explains what results.
RUN = 12
VARIED = 4
# Seconds between a job's beginning and its receipt, clocks that differ included.
_LONGEST = 3600.0


class Canary(msgspec.Struct, frozen=True):
    """`fault` says what is wrong, `sketch` is what its host opens (empty where nothing is sketched)."""

    case: Case
    receipt: SignedReceipt
    fault: str
    sketch: bytes


class Setting(msgspec.Struct, frozen=True):
    """Under whose name a canary goes: the operator's key, its offer for the agent, the court's domain; second `now`."""

    key: PrivateKey
    offer: Offer
    domain: Domain
    now: int


def fits(case: Case, receipt: Receipt) -> bool:
    """Whether a served case can be made a canary of: a whole answer of one attempt, with a run worth turning round."""
    whole = receipt.first == 0 and len(case.emitted) == receipt.output_tokens
    ended = receipt.finish in (Finish.STOP, Finish.LENGTH)
    ran = abs(receipt.issued_at - _began(receipt)) < _LONGEST  # else its id is none that the gateway makes
    return whole and ended and ran and not isinstance(case.request, EmbedRequest) and bool(_runs(case.emitted))


def make(case: Case, served: SignedReceipt, setting: Setting, chance: bytes) -> Canary:
    """A false twin of a case that `fits`. `chance` is 32 fresh bytes and decides all that is left open."""
    receipt = served.value
    runs = _runs(case.emitted)
    at = runs[int.from_bytes(sha256(b"run" + chance)[:8], "big") % len(runs)]
    ids = list(case.emitted)
    ids[at : at + RUN] = reversed(ids[at : at + RUN])
    began = setting.now - (receipt.issued_at - _began(receipt))  # it would have taken as long
    job = new_job(began, sha256(b"lading/job/1" + chance)[:JOB_CHANCE])
    sketch = _sketch(receipt.prompt_tokens + len(ids) - 1, chance) if case.marks else b""
    marks = marks_of(job, 0, receipt.prompt_tokens - 1, sketch) if sketch else []
    price = Price(setting.offer.price_in, setting.offer.price_out)  # type: ignore[arg-type]
    value = msgspec.structs.replace(
        receipt,
        job=job,
        attempt=0,
        host=setting.offer.host,
        terms=setting.offer.terms,
        commitment=commitment(job, ids, 0, marks),
        price_in=setting.offer.price_in,
        price_out=setting.offer.price_out,
        amount=attempt_amount(price, receipt.prompt_tokens, 0, len(ids)),
        issued_at=setting.now,
    )
    signed = Signed(value, _signature(value, served, setting, chance))
    evidence = Case(signed.pack(), case.request, tuple(ids), case.vectors, b"".join(marks))
    return Canary(evidence, signed, f"output tokens {at} to {at + RUN - 1} are in reverse order", sketch)


def _signature(value: Receipt, served: SignedReceipt, setting: Setting, chance: bytes) -> Signature:
    """As if it were bound where the served one is: nobody can tell what else is in a sheaf."""
    index, count = place(served.signature)
    digests = [sha256(b"sheaf" + chance + at.to_bytes(4, "big")) for at in range(count)]
    digests[index] = value.digest(setting.domain)
    return bind(digests, setting.domain, setting.key)[index]


def _began(receipt: Receipt) -> float:
    """Unix seconds that its job's id begins with."""
    return int.from_bytes(receipt.job[:-JOB_CHANCE], "big") / 1000


def _runs(ids: tuple[int, ...]) -> list[int]:
    """Where a run may begin; the last token stays, as it says how the answer ends."""
    found = []
    for at in range(max(len(ids) - RUN, 0)):
        run = ids[at : at + RUN]
        if len(set(run)) >= VARIED and sum(a != b for a, b in zip(run, reversed(run), strict=True)) >= RUN // 2:
            found.append(at)
    return found


def _sketch(positions: int, chance: bytes) -> bytes:
    """Numbers of a normal law in the form of a sketch: half floats, SKETCH_BYTES a position."""
    values = []
    for at in range(positions * SKETCH_BYTES // 4):
        a, b = struct.unpack(">2I", sha256(b"sketch" + chance + at.to_bytes(4, "big"))[:8])
        size, turn = math.sqrt(-2 * math.log((a + 1) / 2**32)), 2 * math.pi * b / 2**32
        values += [size * math.cos(turn), size * math.sin(turn)]
    return struct.pack(f"<{len(values)}e", *values)
