"""What is known of a batch on its way, and what is said of it."""

from msgspec.structs import replace

from factories import NOW, key
from lading_contracts.port import Signed, TxReceipt
from lading_node.core import sending
from lading_node.core.channel import ChannelId
from lading_node.core.sending import FINAL_SECONDS, LAG_SECONDS, Sending
from lading_protocol.ids import Digest, TermsId, Wei

TERMS = TermsId(b"\xbb" * 32)
ONE, TWO = key("one").address, key("two").address
BATCH = Sending(1, TERMS, 2, ((ONE, 9),), ((ONE, 5), (TWO, 7)), NOW)


def signed(nonce: int, label: bytes = b"a") -> Signed:
    return Signed(label, Digest(label * 32), nonce)


def receipt(block: int) -> TxReceipt:
    return TxReceipt(Digest(b"a" * 32), 4, block, Digest(bytes([block]) * 32), 1, Wei(1), ())


def test_rivals_share_a_nonce_and_a_new_nonce_begins_anew() -> None:
    first = sending.sign(BATCH, signed(4))
    rival = sending.sign(first, signed(4, b"b"))
    assert [one.raw for one in rival.signed] == [b"a", b"b"]
    assert sending.sign(rival, signed(5, b"c")).signed == (signed(5, b"c"),)


def test_a_block_ends_the_doubt_only_after_a_while_and_not_when_it_is_taken_back() -> None:
    sent = sending.sign(BATCH, signed(4))
    assert sent.open
    included = sending.include(sent, receipt(7), NOW)
    assert not included.open
    assert not sending.final(included, NOW + FINAL_SECONDS - 1)
    assert sending.final(included, NOW + FINAL_SECONDS)
    back = sending.reopen(included)
    assert back.open
    assert not sending.final(back, NOW + 2 * FINAL_SECONDS)
    assert sending.include(back, receipt(9), NOW).block == 9


def test_rows_that_went_in_a_moment_ago_are_not_due_whatever_a_server_says() -> None:
    included = sending.include(sending.sign(BATCH, signed(4)), receipt(7), NOW)
    higher = replace(included, number=2, vouchers=((ONE, 6),), locks=())
    locks, vouchers = sending.landed([included, higher], NOW + LAG_SECONDS - 1)
    assert locks == {ChannelId(ONE, TERMS, 2): 9}
    assert vouchers == {ChannelId(ONE, TERMS, 2): 6, ChannelId(TWO, TERMS, 2): 7}
    assert sending.landed([included], NOW + LAG_SECONDS) == ({}, {})
    assert sending.landed([sending.reopen(included)], NOW) == ({}, {})


def test_the_operator_reads_where_it_stands() -> None:
    sent = sending.sign(BATCH, signed(4))
    assert "nonce 4, 3 rows) was signed 30 s ago, no block has it yet" in sending.words(sent, NOW + 30)
    included = sending.include(sent, receipt(7), NOW)
    assert "is in block 7, which is watched for another 890 s." in sending.words(included, NOW + 10)
    assert "its block was taken back by the chain and no block has it yet" in sending.words(
        sending.reopen(included), NOW
    )
