"""One question to an auditor, blind: its numbers are sealed before the host's are opened to it, and checked after.

Owns the two conversations (with the host about its opening, with the auditor about its finding) and what makes an
auditor's word count for nothing. Whom to ask, and what to conclude, is decided elsewhere.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from math import isclose, isfinite

import msgspec

from lading_coordinator.audits.fees import Fees
from lading_coordinator.ledger import Ledger
from lading_net.errors import LinkClosed, NetError
from lading_net.messages import MessageStream
from lading_net.ports import Link, Transport
from lading_net.sketches import receive_sketch, send_sketch
from lading_protocol.audit import Verdict, seal
from lading_protocol.eip712 import unpack
from lading_protocol.errors import LadingError
from lading_protocol.ids import JobId, short
from lading_protocol.messages import (
    AUDIT,
    OPENING,
    Case,
    Check,
    EmbedRequest,
    Finding,
    FromAuditor,
    FromOpener,
    GetOpening,
    Refuse,
    Reveal,
    Sealed,
    Sketch,
    Unopened,
)
from lading_protocol.offers import KnownOffer
from lading_protocol.receipts import Receipt
from lading_protocol.sketches import chunk_means, errors
from lading_protocol.transcript import SKETCH_BYTES, marks_of

log = logging.getLogger(__name__)
_from_auditor = msgspec.msgpack.Decoder(FromAuditor)
_from_opener = msgspec.msgpack.Decoder(FromOpener)
OPENING_SECONDS = 30.0
FEE_SECONDS = 15.0


class Distrusted(LadingError):
    """What the auditor showed at the end is not what it had sealed, or not what it found."""

    code = "broken_seal"


class Asking:
    """An auditor has `patience` seconds for a re-run. `noted` hears of every receipt whose host was asked to
    open, and whether it did. `fees` pays who has found something; None: nobody is paid."""

    def __init__(
        self,
        transport: Transport,
        ledger: Ledger,
        patience: float,
        noted: Callable[[bytes, bool], None],
        fees: Fees | None = None,
    ) -> None:
        self._fees = fees
        self._transport = transport
        self._ledger = ledger
        self._patience = patience
        self._noted = noted

    async def ask(self, auditor: KnownOffer, host: KnownOffer | None, leaf: bytes, case: Case) -> Finding:
        """The auditor's finding; a refusal, silence, nonsense and a broken seal count as "cannot say".

        `host` is the audited one, None when it is gone.
        """
        try:
            async with asyncio.timeout(self._patience + 2 * OPENING_SECONDS):
                link = await self._link(auditor)
                messages: MessageStream[FromAuditor] = MessageStream(await link.open(AUDIT), _from_auditor)
                finding = await self._converse(messages, host, leaf, case)
        except TimeoutError:
            return cannot_say(leaf, "silent", f"no answer within {self._patience:g} s")
        except LadingError as error:
            return cannot_say(leaf, error.code, error.message)
        await self._reward(link, messages, auditor, finding, case)
        return finding

    async def _reward(
        self, link: Link, messages: MessageStream[FromAuditor], auditor: KnownOffer, finding: Finding, case: Case
    ) -> None:
        """Every finding alike, right or wrong, of a canary or not: whoever is paid learns nothing from it."""
        with contextlib.suppress(LadingError, TimeoutError):
            async with asyncio.timeout(FEE_SECONDS):
                if self._fees is not None and finding.verdict != Verdict.UNKNOWN:
                    receipt = unpack(Receipt, case.receipt).value
                    fee = await self._fees.pay(link, auditor, finding.receipt, receipt)
                    if fee is not None:
                        messages.send(fee)
                        await messages.drain()
                await messages.close()

    async def _converse(
        self, messages: MessageStream[FromAuditor], host: KnownOffer | None, leaf: bytes, case: Case
    ) -> Finding:
        messages.send(Check(_blind(case)))
        await messages.drain()
        async with asyncio.timeout(self._patience):
            sealed = await messages.recv()
        if isinstance(sealed, Refuse):
            return cannot_say(leaf, sealed.code, sealed.message)
        if not isinstance(sealed, Sealed):
            raise Distrusted("It did not seal its numbers.")
        opened = case.vectors or await self._opened(host, leaf, case)
        if opened is None:
            messages.send(Unopened("The host has not opened its sketch."))
            await messages.drain()
        else:
            await send_sketch(messages, opened)
        finding, own = await self._heard(messages, sealed, leaf)
        if case.marks and opened is not None and not agrees(finding, case, own, opened):
            raise Distrusted("What it found does not follow from the numbers that it shows.")
        return finding

    async def _heard(self, messages: MessageStream[FromAuditor], sealed: Sealed, leaf: bytes) -> tuple[Finding, bytes]:
        """The finding and the auditor's own sketch, both as sealed."""
        finding = await messages.recv()
        if isinstance(finding, Refuse):
            return cannot_say(leaf, finding.code, finding.message), b""
        reveal, first = await messages.recv(), await messages.recv()
        if not isinstance(finding, Finding) or not isinstance(reveal, Reveal) or not isinstance(first, Sketch):
            raise Distrusted("It did not show what it had sealed.")
        numbers = (finding.worst, finding.clipped, finding.chunk, finding.prompt)
        if finding.receipt != leaf or not all(isfinite(n) or n == float("inf") for n in numbers):
            raise Distrusted("What it found is not about this receipt, or no number.")
        own = await receive_sketch(messages, first, len(first.data) + first.left)
        if seal(reveal.salt, leaf, reveal.margins, own) != sealed.digest:
            raise Distrusted("It showed other numbers than those that it had sealed.")
        return finding, own

    async def _opened(self, host: KnownOffer | None, leaf: bytes, case: Case) -> bytes | None:
        """The host's sketch, asked for once and then kept; None where there is none to be had now."""
        kept = self._ledger.opening(leaf)
        if kept is not None or not case.marks:
            return kept
        receipt = unpack(Receipt, case.receipt).value
        before = receipt.prompt_tokens + receipt.first - 1
        try:
            async with asyncio.timeout(OPENING_SECONDS):
                if host is None:
                    raise LinkClosed("The host is gone.")
                link = await self._link(host)
                messages: MessageStream[FromOpener] = MessageStream(await link.open(OPENING), _from_opener)
                messages.send(GetOpening(receipt.job, receipt.attempt))
                await messages.drain()
                first = await messages.recv()
                if not isinstance(first, Sketch):
                    raise LinkClosed(first.message if isinstance(first, Refuse) else "It closed the stream.")
                opened = await receive_sketch(messages, first, SKETCH_BYTES * (before + receipt.output_tokens))
                await messages.close()
            if b"".join(marks_of(JobId(receipt.job), receipt.first, before, opened)) != case.marks:
                raise LinkClosed("It shows another sketch than it committed to.")
        except (LadingError, TimeoutError) as error:
            log.info("Host %s does not open receipt %s: %s", short(receipt.host), short(leaf), error or "no answer")
            self._noted(leaf, False)
            return None
        self._ledger.keep_opening(leaf, opened)
        self._noted(leaf, True)
        return opened

    async def _link(self, offer: KnownOffer) -> Link:
        for link in self._transport.links():
            if link.peer == offer.offer.host and not link.closed.is_set():
                return link
        error: NetError = LinkClosed("There is no link to it.")
        for endpoint in offer.detail.endpoints:
            try:
                return await self._transport.dial(endpoint, offer.offer.host)
            except NetError as failure:
                error = failure
        raise error


def agrees(finding: Finding, case: Case, own: bytes, opened: bytes) -> bool:
    """Whether the sketches, both of which we see, are as far apart as the finding says.

    What no model can have said (a prompt too long, an id that is none) has no states: then nothing was compared.
    """
    if finding.verdict == Verdict.UNKNOWN:
        return True
    if not own and finding.verdict == Verdict.GUILTY:
        return finding.chunk == finding.prompt == 0
    if len(own) != len(opened):
        return False
    receipt = unpack(Receipt, case.receipt).value
    found = errors(own, opened)
    at = receipt.prompt_tokens + receipt.first - 1
    worst = (max(chunk_means(found[at:]), default=0.0), max(found[:at], default=0.0))
    said = (finding.chunk, finding.prompt)
    return finding.code == "impossible" or all(isclose(a, b, rel_tol=1e-6) for a, b in zip(said, worst, strict=True))


def _blind(case: Case) -> Case:
    """Without what the auditor is to find by itself."""
    return msgspec.structs.replace(case, vectors=b"") if isinstance(case.request, EmbedRequest) else case


def cannot_say(leaf: bytes, code: str, reason: str) -> Finding:
    return Finding(leaf, int(Verdict.UNKNOWN), code[:64], reason[:2000])
