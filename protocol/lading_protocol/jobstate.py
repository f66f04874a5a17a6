"""What is known of a job between two events: plain values, which job.apply changes. Decides nothing."""

from collections.abc import Sequence
from typing import Final

import msgspec

from lading_protocol.ids import Address, Digest, JobId, Wei
from lading_protocol.messages import Accept, EmbedRequest, Request
from lading_protocol.offers import KnownOffer
from lading_protocol.pricing import worst_case
from lading_protocol.receipts import Finish

RUNNING: Final = Finish.RUNNING


class JobSpec(msgspec.Struct, frozen=True, gc=False):
    """What stays the same over all attempts."""

    job: JobId
    request: Request
    signer: Address


class Attempt:
    """One host's part so far. `first` is the absolute index of its first output token, `receipt` the last one that it
    sent, packed, over `signed` tokens, `marks` are those of the chunks that this covers (transcript.commitment), `owed`
    is what the payer owes for it. Where it is `bare`, the last receipt may come unsigned."""

    __slots__ = (
        "accepted",
        "bare",
        "count",
        "epoch",
        "first",
        "marks",
        "most_prompt",
        "number",
        "offer",
        "owed",
        "price",
        "receipt",
        "signed",
    )

    def __init__(self, job: "JobState", offer: KnownOffer, epoch: int, number: int, bare: bool) -> None:
        self.number = number
        self.offer = offer
        self.epoch = epoch
        self.first = len(job.emitted)
        self.bare = bare
        self.price = offer.price
        self.most_prompt, _ = worst_case(job.spec.request, offer.detail.context)
        self.accepted: Accept | None = None
        self.count = 0
        self.owed = Wei(0)
        self.receipt = b""
        self.signed = 0
        self.marks: tuple[bytes, ...] = ()

    def sign(self, receipt: bytes, marks: tuple[bytes, ...]) -> None:
        """The host has, for all that it delivered so far."""
        self.receipt, self.marks, self.signed = receipt, marks, self.count


class JobState:
    """A job between events, for `apply` to change. `attempt` is None while no host works on it; `last` is what the one
    before had come to.

    `spelled` is the beginning of a character of a call's answer whose other bytes are still to come.
    """

    __slots__ = (
        "asked",
        "attempt",
        "attempts",
        "emitted",
        "finish",
        "last",
        "prompt_hash",
        "prompt_tokens",
        "rolling",
        "spec",
        "spelled",
        "streamed",
        "vectors",
    )

    def __init__(self, spec: JobSpec, emitted: Sequence[int], rolling: Digest, spelled: bytes) -> None:
        self.spec = spec
        self.streamed = None if isinstance(spec.request, EmbedRequest) else spec.request
        self.emitted = list(emitted)
        self.rolling = rolling
        self.spelled = spelled
        self.vectors = b""
        self.asked = b""  # the request's hash, once a receipt had to say it
        self.attempt: Attempt | None = None
        self.last: Attempt | None = None
        self.prompt_tokens = 0
        self.prompt_hash = b""
        self.attempts = 0
        self.finish = RUNNING

    @property
    def runs(self) -> bool:
        """Whether a host works on it."""
        return self.attempt is not None and self.finish is RUNNING

    def end(self, finish: Finish) -> None:
        """The shell knows better whether and how the job ended; no host works on it now."""
        self.attempt = None
        self.finish = finish
