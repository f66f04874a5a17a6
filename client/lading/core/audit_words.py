"""An audit's record in plain words: the verdict, the numbers beside their limits, who checked, and what comes next.

Pure; `now` is Unix seconds.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

from lading.core.audit_record import Attempt, AuditRecord, Court, Limits, Look
from lading_protocol.ids import from_hex, short

_STATES = {
    "unsigned": "not auditable: the host left no receipt, and nothing is owed for what it did not sign",
    "waiting": "not checked yet: its receipt waits to be anchored",
    "anchored": "not checked yet: its receipt is anchored and waits for the randomness that picks",
    "passed": "not checked: the randomness did not pick it",
    "ordered": "ordered: it is checked with the randomness of the next round",
    "pending": "being checked",
    "accused": "found wrong by two auditors; the case goes to the audit court",
    "disputed": "before the audit court",
    "done": "",
    "canary": "a canary: a known fault, made to test auditors",
}
_VERDICTS = {
    "honest": "HONEST: the answer is what the model gives",
    "guilty": "GUILTY: the answer is not what the model gives",
    "unknown": "UNDECIDED: nobody could say, and nobody is accused",
}
_TESTS = {
    "margin": "a token is one that the sampler could not have chosen",
    "sketch": "the states of the model are not those of this model",
    "prompt": "another prompt was run than the one that was asked",
    "vector": "the vector is not the model's",
    "ending": "the answer ends where neither model nor request ends it",
    "impossible": "no host could have served this honestly",
    "commitment": "the evidence is not what the receipt commits to",
    "ok": "everything agrees within the limits",
    "silent": "it did not answer in time",
    "broken_seal": "it showed other numbers than it had sealed, so its word does not count",
}


def told(record: AuditRecord, now: float) -> list[str]:
    """Lines for a person. An indented line belongs to the one above it."""
    name = f" ({record.name})" if record.name else ""
    lines = [f"Job {record.job}", f"  agent {record.agent}{name}, ended {when(record.ended)}"]
    for attempt in record.attempts:
        lines += ["", *_attempt(attempt, now)]
    return lines


def _attempt(attempt: Attempt, now: float) -> Iterator[str]:
    last = attempt.first + attempt.tokens - 1
    tokens = f"tokens {attempt.first} to {last}" if attempt.tokens else "no tokens"
    yield f"Attempt {attempt.attempt}, host {_short(attempt.host)}, {tokens}"
    yield f"  {_STATES[attempt.state] or _VERDICTS[attempt.verdict]}"
    if attempt.reason:
        yield f"  because {attempt.reason}"
    if attempt.looks:
        yield "  What was compared"
        yield "    An auditor that knew nothing of the host's numbers ran the model over the same prompt and answer."
        yield "    It fixed its own numbers (a sealed hash) before the host opened its own."
    for look in attempt.looks:
        yield from _look(look, attempt.limits)
    yield from _why(attempt)
    yield from _next(attempt, now)


def _look(look: Look, limits: Limits | None) -> Iterator[str]:
    stake = look.pool.get(look.auditor, "")
    drawn = f"drawn by stake out of {len(look.pool)}" if stake else "drawn"
    yield f"  Auditor {look.turn + 1}: {_short(look.auditor)}, {drawn}"
    if not look.verdict:
        yield "    has not answered yet"
        return
    yield f"    finds it {look.verdict} ({_TESTS.get(look.code, look.code)})"
    yield f"    {look.reason}"
    for row in numbers(look, limits):
        yield f"    {row}"
    if look.suspect:
        yield "    An honest host is rarely so far off. That proves nothing; it is counted in the host's long record."


def numbers(look: Look, limits: Limits | None) -> list[str]:
    """Each number beside its limit."""
    known = limits or Limits()
    rows = []
    if look.checked and look.code not in ("vector",):
        rows.append(f"{look.flips} of {look.checked} tokens are not the auditor's own choice")
    if look.code in ("margin", "ok", "toy"):
        rows.append(_row("largest margin", look.worst, known.margin, "logits behind the best token"))
    if look.code == "vector":
        rows.append(_row("largest difference", look.worst, known.relative, "of the vector's length"))
    if look.chunk:
        rows.append(_row("sketch, worst chunk", look.chunk, known.chunk, "mean relative error"))
    if look.prompt:
        rows.append(_row("sketch, worst prompt position", look.prompt, known.prompt, "relative error"))
    return rows


def _row(name: str, value: float, limit: float | None, unit: str) -> str:
    bar = "no limit is published" if limit is None else f"an honest host stays below {limit:g}"
    return f"{name}: {value:.4g} {unit}; {bar}"


def _why(attempt: Attempt) -> Iterator[str]:
    if attempt.why == "bought":
        yield "  Why it is checked: the payer of the job ordered it"
    elif attempt.why == "rate" and attempt.rate_ppm:
        yield f"  Why it is checked: randomness picked it; {_percent(attempt.rate_ppm)} of this host's receipts were"
    now = attempt.standing
    if now is not None:
        yield f"  The host now: {now.clean} audits in a row without a fault, {_percent(now.rate_ppm)} are checked"
        if now.suspect:
            yield f"    suspect in this epoch: {now.suspect}"
        if now.barred:
            yield f"    gets no new jobs: it {now.barred}"
    round_ = attempt.round
    if round_ is not None:
        yield f"  Anchored in round {round_.n}, block {round_.block}, before the randomness was known"
        source = round_.source or f"it waits for {round_.waits_for}"
        due = f", out at {when(round_.due)}" if round_.due and not round_.source else ""
        yield f"    randomness: {source}{due}"


def _next(attempt: Attempt, now: float) -> Iterator[str]:
    """Where the case stands and which deadlines run."""
    opening = attempt.opening
    if opening is not None and not opening.opened:
        times = "once" if opening.tries == 1 else f"{opening.tries} times"
        again = f"; it is asked again {_ahead(opening.again_at, now)}" if opening.again_at else ""
        yield f"  The host was asked {times} to open its sketch and did not{again}"
        yield "    Silence is never a proof: after three times the host is suspect and checked more often"
    if attempt.state == "pending" and attempt.gives_up_at:
        yield f"  Deadline: dropped {_ahead(attempt.gives_up_at, now)} if too few can be asked; nobody is accused then"
    if attempt.court is not None:
        yield from _court(attempt.court, now)


def _court(court: Court, now: float) -> Iterator[str]:
    yield f"  In court: dispute {_short(court.dispute)}, {court.note or court.state}"
    if court.phase == "voting":
        yield f"    a jury of {court.seats} commits {_ahead(court.commit_by, now)}"
        yield f"    and reveals {_ahead(court.reveal_by, now)}"
    if court.phase in ("ruled", "closed") and court.seats:
        yield f"    the jury: {court.guilty} guilty, {court.honest} honest, of {court.seats} seats"
    if court.phase == "ruled":
        until = _ahead(court.appeal_by, now)
        yield f"    who lost or was outvoted may appeal {until}; stake is slashed only after that"
        yield f"    lading stake appeal {court.dispute}"


def when(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _ahead(moment: float, now: float) -> str:
    return f"by {when(moment)}" + ("" if moment > now else " (past)")


def _percent(ppm: int) -> str:
    return f"{ppm / 10_000:.3g} %"


def _short(text: str) -> str:
    try:
        return short(from_hex(text, len(text.removeprefix("0x")) // 2))
    except ValueError:
        return text[:80]
