"""An audit case: whether the evidence is what the receipt speaks of, and what a re-run of it says. Pure.

The verdict itself is lading_protocol.audit's.
"""

import math
import struct

import msgspec

from lading_node.engines.port import Embedded, Failed, Scored
from lading_protocol.audit import CLIP, Judgement, Rerun, Tolerance, judge
from lading_protocol.ids import JobId
from lading_protocol.messages import Case, EmbedRequest, Finding, request_hash
from lading_protocol.receipts import Finish, Receipt, SignedReceipt, receipt_leaf
from lading_protocol.sketches import chunk_means, errors
from lading_protocol.transcript import (
    SKETCH_BYTES,
    commitment,
    marks_of,
    merkle_root,
    prompt_hash,
    vectors_leaf,
)

_OTHER_VECTORS = "The vectors are not those that the receipt commits to."


def mismatch(case: Case, receipt: Receipt) -> str:
    """Why the case is not what the receipt commits to, or "" when it is. Vectors may still be to come."""
    if request_hash(case.request) != receipt.request:
        return "The request is not the one that the receipt names."
    if isinstance(case.request, EmbedRequest):
        if receipt.first or case.emitted or case.marks:
            return "An embedding has no emitted tokens."
        return "" if not case.vectors or holds(case, receipt, case.vectors) else _OTHER_VECTORS
    if len(case.emitted) != receipt.first + receipt.output_tokens:
        return f"The case has {len(case.emitted)} tokens, the receipt {receipt.first + receipt.output_tokens}."
    try:
        root = commitment(JobId(receipt.job), case.emitted, receipt.first, _marks(case))
    except ValueError:
        return f"The case has {len(case.marks)} bytes of marks, which are not those of its tokens."
    return "" if root == receipt.commitment else "The tokens are not those that the receipt commits to."


def opening_size(case: Case, receipt: Receipt, own: Scored | Embedded | Failed) -> int | None:
    """How many bytes the host can open; None when our own re-run cannot tell."""
    if isinstance(own, Embedded):
        return 4 * own.width * len(own.vectors)
    if isinstance(case.request, EmbedRequest):
        return None
    return SKETCH_BYTES * (_positions(receipt) + receipt.output_tokens) if case.marks else 0


def holds(case: Case, receipt: Receipt, opened: bytes) -> bool:
    """Whether the receipt commits to what was opened. If not, nobody knows who altered it: it counts for nothing."""
    job = JobId(receipt.job)
    if isinstance(case.request, EmbedRequest):
        return merkle_root([vectors_leaf(job, opened)] if opened else []) == receipt.commitment
    return b"".join(marks_of(job, receipt.first, _positions(receipt), opened)) == case.marks


def _positions(receipt: Receipt) -> int:
    """How many positions lie before the one that gave the attempt's first token."""
    return receipt.prompt_tokens + receipt.first - 1


def _marks(case: Case) -> list[bytes]:
    return [case.marks[at : at + 32] for at in range(0, len(case.marks), 32)]


def rerun_chat(scored: Scored, case: Case, receipt: Receipt, opened: bytes | None) -> Rerun:
    """An answer that ended must end where the model or the request ends it; one that was cut off must not have gone on
    past an end. `opened` is the host's sketch, None where it was not to be had."""
    count = len(case.emitted)
    if receipt.finish in (Finish.STOP, Finish.LENGTH):
        ends_well = scored.finish == Finish(receipt.finish).name.lower() and scored.ended == count
    else:
        ends_well = scored.ended in (0, count)
    rerun = Rerun(scored.prompt_hash, scored.prompt_tokens, scored.margins, ends_well=ends_well)
    if not scored.sketch or not receipt.output_tokens:
        return rerun
    if not case.marks:
        why = "The receipt commits to no sketch, and every host of this agent has one."
        return msgspec.structs.replace(rerun, impossible=why)
    if opened is None or len(opened) != len(scored.sketch):
        return rerun
    found = errors(scored.sketch, opened)
    at = _positions(receipt)
    return msgspec.structs.replace(rerun, chunks=chunk_means(found[at:]), prompt=tuple(found[:at]))


def rerun_embed(embedded: Embedded, opened: bytes) -> Rerun:
    """The relative difference of each row, |a - b| / |b| with b our own. A wrong shape does not end well."""
    row = 4 * embedded.width
    tokens = embedded.tokens
    fits = len(opened) == row * len(embedded.vectors)
    relative = (
        tuple(_relative(opened[at * row : (at + 1) * row], own) for at, own in enumerate(embedded.vectors))
        if fits
        else ()
    )
    return Rerun(prompt_hash(tokens), sum(tokens), relative=relative, ends_well=fits)


def conclude(receipt: SignedReceipt, rerun: Rerun, limits: Tolerance | None) -> Finding:
    claimed = receipt.value
    judged: Judgement = judge(rerun, claimed.prompt_hash, claimed.prompt_tokens, limits)
    return Finding(
        receipt=receipt_leaf(receipt),
        verdict=int(judged.verdict),
        code=judged.code,
        reason=judged.reason,
        worst=judged.worst,
        position=judged.position,
        checked=len(rerun.margins or rerun.relative),
        flips=sum(1 for margin in rerun.margins if margin > 0),
        clipped=sum(min(margin, CLIP) for margin in rerun.margins),
        chunk=max(rerun.chunks, default=0.0),
        prompt=max(rerun.prompt, default=0.0),
        suspect=judged.suspect,
    )


def _relative(theirs: bytes, own: bytes) -> float:
    a = struct.unpack(f"<{len(theirs) // 4}f", theirs)
    b = struct.unpack(f"<{len(own) // 4}f", own)
    if not all(map(math.isfinite, a)):
        return math.inf
    size = math.sqrt(sum(y * y for y in b))
    distance = math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))
    return distance / size if size else (0.0 if distance == 0 else math.inf)
