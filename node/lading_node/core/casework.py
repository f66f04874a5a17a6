"""An audit case: whether the evidence is what the receipt speaks of, and what a re-run of it says. Pure.

The verdict itself is lading_protocol.audit's.
"""

import math
import struct

from lading_node.engines.port import Embedded, Scored
from lading_protocol.audit import CLIP, TOLERANCES, Judgement, Rerun, judge
from lading_protocol.ids import JobId
from lading_protocol.messages import Case, EmbedRequest, Finding, request_hash
from lading_protocol.receipts import Finish, Receipt, SignedReceipt, receipt_leaf
from lading_protocol.transcript import commitment, merkle_root, prompt_hash, vectors_leaf


def mismatch(case: Case, receipt: Receipt) -> str:
    """Why the case is not what the receipt commits to, or "" when it is."""
    if request_hash(case.request) != receipt.request:
        return "The request is not the one that the receipt names."
    if not isinstance(case.request, EmbedRequest):
        if len(case.emitted) != receipt.first + receipt.output_tokens:
            return f"The case has {len(case.emitted)} tokens, the receipt {receipt.first + receipt.output_tokens}."
        if commitment(JobId(receipt.job), case.emitted, receipt.first) != receipt.commitment:
            return "The tokens are not those that the receipt commits to."
        return ""
    if receipt.first or case.emitted:
        return "An embedding has no emitted tokens."
    if merkle_root([vectors_leaf(JobId(receipt.job), case.vectors)] if case.vectors else []) != receipt.commitment:
        return "The vectors are not those that the receipt commits to."
    return ""


def rerun_chat(scored: Scored, case: Case, receipt: Receipt) -> Rerun:
    """An answer that ended must end where the model or the request ends it; one that was cut off must not have gone on
    past an end."""
    count = len(case.emitted)
    if receipt.finish in (Finish.STOP, Finish.LENGTH):
        ends_well = scored.finish == Finish(receipt.finish).name.lower() and scored.ended == count
    else:
        ends_well = scored.ended in (0, count)
    return Rerun(scored.prompt_hash, scored.prompt_tokens, scored.margins, ends_well=ends_well)


def rerun_embed(embedded: Embedded, case: Case) -> Rerun:
    """The relative difference of each row, |a - b| / |b| with b our own. A wrong shape does not end well."""
    row = 4 * embedded.width
    tokens = embedded.tokens
    fits = len(case.vectors) == row * len(embedded.vectors)
    relative = (
        tuple(_relative(case.vectors[at * row : (at + 1) * row], own) for at, own in enumerate(embedded.vectors))
        if fits
        else ()
    )
    return Rerun(prompt_hash(tokens), sum(tokens), relative=relative, ends_well=fits)


def conclude(receipt: SignedReceipt, rerun: Rerun, numeric: str) -> Finding:
    claimed = receipt.value
    judged: Judgement = judge(rerun, claimed.prompt_hash, claimed.prompt_tokens, TOLERANCES.get(numeric))
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
