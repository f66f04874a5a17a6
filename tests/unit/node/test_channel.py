"""The account of one channel: what runs on it, what was earned, and what is signed for."""

import msgspec
import pytest

from lading_node.core import channel as channels
from lading_node.core.channel import Channel, ChannelId, Running
from lading_protocol.ids import JobId, Wei
from unit.node.world import PAYER, TERMS


def channel(**changes: object) -> Channel:
    return msgspec.structs.replace(Channel(ChannelId(PAYER.address, TERMS, 0), locked=Wei(10**12)), **changes)


def test_two_jobs_share_one_channel_and_its_bound() -> None:
    state = channel()
    first, second = JobId(b"\x01" * 32), JobId(b"\x02" * 32)
    state = channels.begin(channels.begin(state, Running(first, 0, Wei(100))), Running(second, 0, Wei(50)))
    state = channels.earn(state, first, 0, Wei(120))
    assert channels.headroom(state) == 30
    state = channels.sign_for(state, Wei(120))
    assert channels.headroom(state) == 150
    state = channels.end(state, first, 0)
    assert (state.written, channels.headroom(state)) == (0, 50)


def test_a_debt_that_is_paid_late_is_forgotten() -> None:
    state = channels.restored(channel(earned=Wei(80), signed=Wei(50)))
    assert state.written == 30
    assert channels.sign_for(state, Wei(70)).written == 10
    assert channels.sign_for(state, Wei(80)).written == 0


def test_a_crash_that_lost_the_account_is_mended_by_the_payers_word() -> None:
    state = channels.admit_to(channel(earned=Wei(10), signed=Wei(10)), Wei(25))
    assert state.earned == 25
    busy = channels.begin(channel(), Running(JobId(b"\x01" * 32), 0, Wei(9)))
    assert channels.admit_to(busy, Wei(25)).earned == 0


def test_an_amount_never_falls() -> None:
    job = JobId(b"\x01" * 32)
    state = channels.earn(channels.begin(channel(), Running(job, 0, Wei(9))), job, 0, Wei(5))
    with pytest.raises(ValueError, match="never falls"):
        channels.earn(state, job, 0, Wei(4))
    with pytest.raises(ValueError, match="does not run"):
        channels.earn(state, job, 1, Wei(9))
