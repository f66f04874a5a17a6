"""What `lading receipt verify` finds, and what it must never miss."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import NOW, job_id, key, network
from lading.core.receipts import check, check_job
from lading_protocol.eip712 import Domain, unpack
from lading_protocol.errors import BadMessage
from lading_protocol.ids import Wei
from lading_protocol.pricing import Price, attempt_amount
from lading_protocol.receipts import Finish, Receipt, SignedReceipt
from lading_protocol.transcript import commitment

DOMAIN = network().court_domain
HOST = key("host")
IDS = tuple(range(100, 170))


def receipt(first: int = 0, count: int = 70, **changes: object) -> Receipt:
    price = Price(Wei(7000), Wei(11000))
    made = Receipt(
        job=job_id(),
        attempt=0 if first == 0 else 1,
        request=b"\x01" * 32,
        agent=b"\x02" * 32,
        terms=b"\x03" * 32,
        host=HOST.address,
        signer=key("payer").address,
        epoch=0,
        first=first,
        prompt_tokens=12,
        output_tokens=count,
        prompt_hash=b"\x04" * 32,
        commitment=commitment(job_id(), IDS[: first + count], first),
        price_in=7000,
        price_out=11000,
        amount=attempt_amount(price, 12, first, count),
        finish=Finish.STOP,
        issued_at=int(NOW),
    )
    return msgspec.structs.replace(made, **changes)


def faults(one: Receipt, ids: tuple[int, ...] | None = IDS, domain: Domain = DOMAIN) -> str:
    return "; ".join(check(one.sign(DOMAIN, HOST), domain, ids).faults)


@pytest.mark.parametrize(("first", "count"), [(0, 70), (0, 0), (0, 32), (32, 38), (69, 1)])
def test_an_honest_receipt_holds(first: int, count: int) -> None:
    assert faults(receipt(first, count)) == ""
    assert faults(receipt(first, count), None) == ""


@given(at=st.integers(min_value=0), bit=st.integers(min_value=0, max_value=7))
def test_no_changed_bit_goes_unnoticed(at: int, bit: int) -> None:
    packed = bytearray(receipt().sign(DOMAIN, HOST).pack())
    packed[at % len(packed)] ^= 1 << bit
    try:
        tampered: SignedReceipt = unpack(Receipt, bytes(packed))
    except BadMessage:
        return
    assert check(tampered, DOMAIN).faults


def test_each_fault_is_said() -> None:
    assert "not signed by its host" in faults(receipt(host=key("other").address))
    assert "not signed by its host" in faults(receipt(), domain=network(chain_id=2).court_domain)
    assert "make 854 wei, it says 855" in faults(receipt(amount=855))
    assert "unknown way (9)" in faults(receipt(finish=9))
    assert "commitment" in faults(receipt(), (*IDS[:-1], 1))
    assert "commitment" in faults(receipt(), IDS[:-1])
    assert "commitment" in faults(receipt(32, 38), (1, *IDS[1:]))


def test_a_job_charges_each_token_once() -> None:
    first, second = receipt(0, 32), receipt(32, 38)
    assert check_job([first, second], [job_id()]) == ()
    assert check_job([second, first], []) == ()
    assert "both charge token 20" in check_job([first, receipt(20, 50)], [])[0]
    assert "twice" in check_job([first, first], [])[0]
    assert "not all of this job" in check_job([first], [job_id("another")])[0]
    assert "different" in check_job([first, msgspec.structs.replace(second, agent=b"\x09" * 32)], [])[0]


def test_an_answer_that_went_on_at_another_gateway_charges_each_token_once() -> None:
    other = job_id("another")
    first, second = receipt(0, 32), msgspec.structs.replace(receipt(32, 38), job=other, attempt=0)
    assert check_job([second, first], [job_id(), other]) == ()
    assert "both charge token 0" in check_job([first, second], [other, job_id()])[0]
    assert "not all of this job" in check_job([first, second], [job_id()])[0]
