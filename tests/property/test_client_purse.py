"""The purse, for any order of payments, locks and restarts: promises only grow, and none is forgotten."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factories import key, network
from lading.dispatch import purse as purse_module
from lading.dispatch.purse import ChannelKey, Purse
from lading_protocol.eip712 import unpack
from lading_protocol.ids import TermsId
from lading_protocol.receipts import Lock, Voucher

DOMAIN = network().settlement_domain
PAYER = key("payer")
KEYS = [ChannelKey(PAYER.address, key(host).address, TermsId(b"\xbb" * 32), 0) for host in ("a", "b")]
steps = st.lists(
    st.tuples(st.sampled_from(["pay", "lock", "restart"]), st.sampled_from(KEYS), st.integers(0, 2**80)), max_size=25
)


@settings(max_examples=60, deadline=None)
@given(steps, st.sampled_from([2, 3, purse_module.MOST_KNOWN]))
def test_promises_grow_by_what_was_owed_and_survive_restarts(
    plan: list[tuple[str, ChannelKey, int]], by_heart: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(purse_module, "MOST_KNOWN", by_heart)
        _keep_books(plan)


def _keep_books(plan: list[tuple[str, ChannelKey, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "purse.sqlite"
        purse = Purse(path, DOMAIN)
        paid = dict.fromkeys(KEYS, 0)
        locked = dict.fromkeys(KEYS, 0)
        for what, channel, amount in plan:
            if what == "restart":
                purse.close()
                purse = Purse(path, DOMAIN)
            elif what == "pay":
                purse.pay(PAYER, channel, amount)
                paid[channel] += amount
            else:
                purse.lock(PAYER, channel, amount)
                locked[channel] = max(locked[channel], amount)
            held = purse.channel(channel)
            assert (held.cumulative, held.locked) == (paid[channel], locked[channel])
        assert purse.locked(PAYER.address) == sum(locked.values())
        for channel in KEYS:
            _check_papers(purse, channel, paid[channel], locked[channel])
        purse.close()


def _check_papers(purse: Purse, channel: ChannelKey, paid: int, locked: int) -> None:
    held = purse.channel(channel)
    if paid:
        voucher = unpack(Voucher, held.voucher)
        voucher.check(DOMAIN, PAYER.address)
        assert voucher.value == Voucher(channel.host, channel.terms, channel.epoch, paid)
        assert list(purse.pages(channel.host, 9)) == [[(held.voucher, held.lock)]]
        assert list(purse.pages(channel.host, 1)) == [[(held.voucher, held.lock)], []]
    else:
        assert list(purse.pages(channel.host, 9)) == [[]]
    if locked:
        assert unpack(Lock, held.lock).value.cumulative == locked


def test_a_closed_channel_no_longer_counts_as_locked() -> None:
    purse = Purse(":memory:", DOMAIN)
    channel = KEYS[0]
    purse.lock(PAYER, channel, 50)
    assert purse.locked(PAYER.address) == 50
    purse.set_epoch(channel.signer, channel.host, channel.terms, 1)
    assert purse.epoch(channel.signer, channel.host, channel.terms) == 1
    assert purse.locked(PAYER.address) == 0
    purse.close()
