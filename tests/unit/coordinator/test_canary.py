"""What a canary may be made of, and the id that it gets."""

from factories import NOW, chat_request, job_id, key, known_offer, network, receipt
from lading_coordinator.core.canary import Setting, fits, make
from lading_protocol.ids import JOB_CHANCE, JobId, new_job
from lading_protocol.messages import Case
from lading_protocol.receipts import Receipt, SignedReceipt

IDS = tuple(range(100, 132))


def served(job: JobId) -> tuple[Case, SignedReceipt]:
    signed = receipt(job=job, issued_at=int(NOW), finish=1)
    return Case(signed.pack(), chat_request(), IDS, b"", b""), signed


def test_its_id_tells_a_time_as_long_before_its_receipt() -> None:
    case, signed = served(new_job(NOW - 7.123, bytes(JOB_CHANCE)))
    assert fits(case, signed.value)
    setting = Setting(key("canary"), known_offer(key("canary")).offer, network().court_domain, int(NOW) + 90)
    made = [make(case, signed, setting, bytes([chance]) * 32).receipt.value for chance in range(2)]
    for one in made:
        assert took(one) == took(signed.value) == 7123
        assert one.issued_at == int(NOW) + 90
    assert made[0].job != made[1].job


def test_none_is_made_of_a_job_whose_id_tells_no_time() -> None:
    case, signed = served(job_id())
    assert not fits(case, signed.value)


def took(value: Receipt) -> int:
    return 1000 * value.issued_at - int.from_bytes(value.job[:6], "big")
