"""When to redeem, what a juror does next, and whether a case is what it claims to be."""

import math
import struct

import msgspec
import pytest

from factories import chat_request, embed_request, key, network
from lading_node.core.casework import conclude, mismatch, rerun_chat, rerun_embed
from lading_node.core.channel import Channel, ChannelId, cover, see_chain
from lading_node.core.duty import Docket, Next, Seat, next_step, worth_appealing
from lading_node.core.policy import BATCH_ROWS, Claim, Policy, plan
from lading_node.engines.port import Embedded, Scored
from lading_protocol.audit import DECLARED, TOLERANCES, Rerun, Verdict
from lading_protocol.conduct import sums_of
from lading_protocol.court import Phase
from lading_protocol.ids import JobId, TermsId, Wei
from lading_protocol.messages import Case, request_hash
from lading_protocol.receipts import Receipt
from lading_protocol.transcript import commitment, merkle_root, prompt_hash, vectors_leaf

TERMS = TermsId(b"\xbb" * 32)


def claim(name: str, signed: int, redeemed: int = 0, locked: int = 1000, lock: int = 0, **more: object) -> Claim:
    state = Channel(
        ChannelId(key(name).address, TermsId(more.pop("terms", TERMS)), int(more.pop("epoch", 0))),
        locked=Wei(locked),
        redeemed=Wei(redeemed),
        signed=Wei(signed),
        closing=bool(more.pop("closing", False)),
        dead=bool(more.pop("dead", False)),
    )
    return Claim(state, lock, float(more.pop("since", 0.0)))


POLICY = Policy(Wei(100), 60.0)


def test_nothing_is_sent_for_too_little() -> None:
    assert plan([claim("a", 99, since=0.0)], POLICY, now=59.0) == []


@pytest.mark.parametrize(
    ("claims", "now", "why"),
    [
        ([claim("a", 60), claim("b", 40)], 1.0, "100 wei have accrued"),
        ([claim("a", 1)], 60.0, "the oldest voucher is due"),
        ([claim("a", 1, closing=True)], 1.0, "a payer closes its channel"),
    ],
)
def test_reasons_to_redeem(claims: list[Claim], now: float, why: str) -> None:
    (batch,) = plan(claims, POLICY, now)
    assert batch.why == why
    assert set(batch.vouchers) == {one.channel.id for one in claims}


def test_only_what_is_locked_counts() -> None:
    assert plan([claim("a", 500, redeemed=90, locked=90)], POLICY, now=99.0) == []
    (batch,) = plan([claim("a", 500, redeemed=90, locked=90, lock=500)], POLICY, now=1.0)
    assert batch.locks == batch.vouchers


def test_a_payer_that_closes_cannot_keep_its_lock_from_landing() -> None:
    (batch,) = plan([claim("a", 50, locked=10, lock=50, closing=True)], POLICY, now=0.0)
    assert (len(batch.locks), len(batch.vouchers)) == (1, 1)


def test_what_a_dead_channel_never_paid_is_not_tried_for_ever() -> None:
    """Otherwise one old paper would have everything redeemed again and again, and the gas is the host's."""
    dead = claim("a", 50, locked=10, redeemed=10, lock=50, closing=True, dead=True)
    assert plan([dead, claim("b", 5)], POLICY, now=0.0) == []
    pending = msgspec.structs.replace(dead.channel, dead=False, pending=Wei(50))
    assert cover(see_chain(pending, Wei(10), Wei(10), False, True)) == 10


def test_a_lock_goes_out_at_once_without_vouchers() -> None:
    (batch,) = plan([claim("a", 0, locked=0, lock=50)], POLICY, now=0.0)
    assert (len(batch.locks), batch.vouchers, batch.why) == (1, (), "")


def test_batches_are_per_table_and_epoch_and_bounded() -> None:
    many = [claim(f"p{n}", 100 + n) for n in range(BATCH_ROWS + 3)]
    other = [claim("q", 100, epoch=1), claim("q", 100, terms=b"\xcc" * 32)]
    batches = plan(many + other, POLICY, now=0.0)
    assert sorted(len(one.vouchers) for one in batches) == [1, 1, 3, BATCH_ROWS]
    first = next(one for one in batches if len(one.vouchers) == BATCH_ROWS)
    assert first.vouchers[0] == many[-1].channel.id  # the most valuable first


def test_a_forced_plan_takes_everything() -> None:
    (batch,) = plan([claim("a", 1), claim("b", 0)], POLICY, now=0.0, force="the node stops")
    assert len(batch.vouchers) == 1


# Jury duty

VOTING = Docket(Phase.VOTING, 0, 100, 200, 0, 3, 0, 0)
CONVICTED = msgspec.structs.replace(VOTING, phase=Phase.RULED, appeal_by=300, verdict=2)


def docket(**changes: object) -> Docket:
    return msgspec.structs.replace(VOTING, **changes)


@pytest.mark.parametrize(
    ("case", "stage", "now", "step"),
    [
        (None, "", 0, Next.DONE),
        (docket(phase=Phase.CLOSED), "revealed", 0, Next.DONE),
        (docket(phase=Phase.VOID), "", 0, Next.DONE),
        (docket(round=1), "", 0, Next.DONE),
        (docket(), "", 99, Next.DECIDE),
        (docket(), "decided", 99, Next.COMMIT),
        (docket(), "decided", 100, Next.TALLY),
        (docket(committed=1), "decided", 100, Next.WAIT),
        (docket(committed=1), "committed", 99, Next.WAIT),
        (docket(committed=3), "committed", 99, Next.REVEAL),
        (docket(committed=2), "committed", 100, Next.REVEAL),
        (docket(committed=2), "committed", 200, Next.WAIT),
        (docket(committed=3, revealed=2), "revealed", 150, Next.WAIT),
        (docket(committed=3, revealed=3), "revealed", 150, Next.TALLY),
        (docket(committed=2, revealed=2), "revealed", 150, Next.TALLY),
        (docket(committed=2, revealed=1), "revealed", 204, Next.WAIT),
        (docket(committed=2, revealed=1), "revealed", 205, Next.TALLY),
        (docket(committed=0), "abstained", 250, Next.TALLY),
        (docket(phase=Phase.RULED, appeal_by=300), "revealed", 304, Next.WAIT),
        (docket(phase=Phase.RULED, appeal_by=300), "revealed", 305, Next.EXECUTE),
        (docket(phase=Phase.DRAWING), "", 0, Next.WAIT),
    ],
)
def test_what_a_juror_does_next(case: Docket | None, stage: str, now: int, step: Next) -> None:
    assert next_step(case, Seat(0, 0, stage), now) is step


@pytest.mark.parametrize(
    ("case", "seat", "now", "step"),
    [
        (CONVICTED, Seat(0, 0, "revealed", 1), 299, Next.APPEAL),
        (CONVICTED, Seat(0, 0, "revealed", 1), 300, Next.WAIT),
        (CONVICTED, Seat(0, 0, "revealed", 2), 299, Next.WAIT),
        (CONVICTED, Seat(0, 0, "committed", 1), 299, Next.WAIT),
        (CONVICTED, Seat(0, 0, "outvoted", 1), 299, Next.WAIT),
        (CONVICTED, Seat(0, 0, "outvoted", 1), 305, Next.EXECUTE),
        (msgspec.structs.replace(CONVICTED, appeals=2), Seat(0, 0, "revealed", 1), 299, Next.WAIT),
        (msgspec.structs.replace(CONVICTED, verdict=1), Seat(0, 0, "revealed", 2), 299, Next.WAIT),
    ],
)
def test_a_juror_appeals_a_conviction_that_it_knows_to_be_wrong(case: Docket, seat: Seat, now: int, step: Next) -> None:
    assert next_step(case, seat, now) is step


def test_the_host_has_the_first_half_of_the_window() -> None:
    assert [now for now in range(280, 301) if worth_appealing(300, 10, now)] == [295, 296, 297, 298, 299]


def test_later_seats_wait_longer_to_finish_what_the_first_left() -> None:
    late = docket(phase=Phase.RULED, appeal_by=300)
    assert next_step(late, Seat(0, 2, "revealed"), 310) is Next.WAIT
    assert next_step(late, Seat(0, 2, "revealed"), 315) is Next.EXECUTE


# Cases

JOB = JobId(b"\x09" * 32)
LIMITS = TOLERANCES["onnx-f32-cpu"]
NET = network()


def receipt(**changes: object) -> Receipt:
    base = Receipt(
        job=JOB,
        attempt=0,
        request=request_hash(chat_request()),
        agent=b"\xaa" * 32,
        terms=TERMS,
        host=key("host").address,
        signer=key("payer").address,
        epoch=0,
        first=1,
        prompt_tokens=2,
        output_tokens=3,
        prompt_hash=prompt_hash((1, 2)),
        commitment=commitment(JOB, (5, 6, 7, 8), 1),
        price_in=1,
        price_out=1,
        amount=1,
        finish=1,
        issued_at=1,
    )
    return msgspec.structs.replace(base, **changes)


def case(emitted: tuple[int, ...] = (5, 6, 7, 8), **changes: object) -> Case:
    return msgspec.structs.replace(Case(b"x" * 65, chat_request(), emitted), **changes)


def test_a_case_must_be_what_the_receipt_commits_to() -> None:
    assert mismatch(case(), receipt()) == ""
    assert "request" in mismatch(case(request=chat_request("other")), receipt())
    assert "3 tokens" in mismatch(case((5, 6, 7)), receipt())
    assert "commits to" in mismatch(case((5, 6, 7, 9)), receipt())
    # another beginning would make honest tokens look wrong
    assert "commits to" in mismatch(case((4, 6, 7, 8)), receipt())


def scored(margins: tuple[float, ...] = (0.0, 0.0, 0.0), finish: str = "stop", ended: int = 4) -> Scored:
    return Scored("x", 2, prompt_hash((1, 2)), margins, finish, ended)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("result", "changes", "verdict", "code"),
    [
        (scored(), {}, Verdict.HONEST, "ok"),
        (scored((0.0, 0.5, 0.0)), {}, Verdict.GUILTY, "margin"),
        (scored(), {"prompt_tokens": 3}, Verdict.GUILTY, "prompt"),
        (scored(finish="", ended=0), {}, Verdict.GUILTY, "ending"),
        (scored(finish="length"), {}, Verdict.GUILTY, "ending"),
        (scored(ended=3), {}, Verdict.GUILTY, "ending"),
        (scored(finish="", ended=0), {"finish": 3}, Verdict.HONEST, "ok"),
        (scored(ended=4), {"finish": 4}, Verdict.HONEST, "ok"),
        (scored(ended=2), {"finish": 0}, Verdict.GUILTY, "ending"),
    ],
)
def test_verdicts_on_chats(result: Scored, changes: dict[str, object], verdict: Verdict, code: str) -> None:
    claimed = receipt(**changes)
    signed = claimed.sign(NET.court_domain, key("host"))
    finding = conclude(signed, rerun_chat(result, case(), claimed, None), LIMITS)
    assert (finding.verdict, finding.code) == (verdict, code)


@pytest.mark.parametrize("result", [scored((0.0, math.inf, 0.0)), scored(ended=3), scored(finish="", ended=0)])
def test_a_promise_of_the_publisher_slashes_nobody(result: Scored) -> None:
    """Or a publisher could have honest hosts slashed; who differs is suspect."""
    claimed = receipt()
    signed = claimed.sign(NET.court_domain, key("host"))
    finding = conclude(signed, rerun_chat(result, case(), claimed, None), TOLERANCES[DECLARED])
    assert (finding.verdict, finding.suspect) == (Verdict.HONEST, True)
    added = sums_of(finding, 3)
    assert added is not None
    assert added.rare == 1
    fine = conclude(signed, rerun_chat(scored(), case(), claimed, None), TOLERANCES[DECLARED])
    assert (fine.verdict, fine.suspect) == (Verdict.HONEST, False)


def test_an_unknown_numeric_class_gives_no_verdict() -> None:
    signed = receipt().sign(NET.court_domain, key("host"))
    assert conclude(signed, rerun_chat(scored(), case(), receipt(), None), None).verdict == Verdict.UNKNOWN


def test_vectors_are_compared_row_by_row() -> None:
    own = [struct.pack("<2f", 3.0, 4.0), struct.pack("<2f", 1.0, 0.0)]
    embedded = Embedded("x", 2, tuple(own), (2, 3))
    claim_ = receipt(
        first=0,
        output_tokens=0,
        request=request_hash(embed_request("a", "b")),
        prompt_tokens=5,
        prompt_hash=prompt_hash((2, 3)),
    )

    def verdict(data: bytes) -> str:
        shown = Case(b"x" * 65, embed_request("a", "b"), vectors=data)
        bound = msgspec.structs.replace(claim_, commitment=merkle_root([vectors_leaf(JOB, data)]))
        assert mismatch(shown, bound) == ""
        return conclude(bound.sign(NET.court_domain, key("host")), rerun_embed(embedded, shown.vectors), LIMITS).code

    assert verdict(b"".join(own)) == "ok"
    assert verdict(own[0] + struct.pack("<2f", 1.001, 0.0)) == "vector"
    assert verdict(own[0] + struct.pack("<2f", float("nan"), 0.0)) == "vector"
    assert verdict(own[0]) == "ending"


@pytest.mark.parametrize(
    ("rerun", "code"),
    [
        (Rerun(prompt_hash((1, 2)), 2, impossible="The prompt has 300 tokens; the context is 256."), "impossible"),
        (Rerun(prompt_hash((1, 2)), 2, (0.0, float("nan"), 0.1)), "margin"),
        (Rerun(prompt_hash((1, 2)), 2, (0.0, float("inf"))), "margin"),
        (Rerun(prompt_hash((1, 2)), 2, relative=(float("nan"),)), "vector"),
    ],
)
def test_work_that_nobody_could_do_honestly_is_guilty_not_undecided(rerun: Rerun, code: str) -> None:
    signed = receipt().sign(NET.court_domain, key("host"))
    finding = conclude(signed, rerun, LIMITS)
    assert (finding.verdict, finding.code) == (Verdict.GUILTY, code)
    assert conclude(signed, rerun, None).verdict == Verdict.UNKNOWN
