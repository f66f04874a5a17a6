"""An answer that is cut anywhere in its bytes goes on behind exactly what was handed out; who lies is not believed."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import receipt as make_receipt
from lading.core.continued import Begun, Continued, Rest, Told, line
from lading_protocol.ids import from_hex
from lading_protocol.messages import MAX_TOKENS

JOB = "0x" + "ab" * 32
HEAD = {
    "x-lading-ids": "2",
    "x-lading-agent": "0x" + "aa" * 32,
    "x-lading-max-tokens": "40",
    "x-lading-created": "5",
    "x-lading-job": JOB,
}
# Tokens and the text that each releases: some none (half a character, a held stop), some of several bytes.
TOKENS = [
    (n * 7, text) for n, text in enumerate(["a ", "", "é", '{"x": 1}', "", "\n", "b\r\nc", "data: ", "€", "z"] * 3)
]
WHOLE = "".join(text for _, text in TOKENS)


def event(text: str) -> bytes:
    return f"data: {json.dumps({'choices': [{'delta': {'content': text}}]})}\n\n".encode() if text else b""


def stream(body: dict[str, object], burst: int) -> bytes:
    """What a gateway sends of the rest: its opening, pieces, and an end of two events."""
    rest = body.get("lading")
    there = msgspec.convert(rest, Rest) if rest is not None else None
    first, paid = (len(there.choices[0].ids), int(there.paid)) if there is not None else (0, 0)
    parts = [] if there is not None and there.events else [line(Told(events=1)), event("!")]
    for at in range(first, len(TOKENS), burst):
        some = TOKENS[at : at + burst]
        told = b"".join(event(one) for _, one in some)
        ids, cost = tuple(token for token, _ in some), 10 * (at + len(some) - first)
        parts += [line(Told(0, at, ids, told.count(b"\n\n"), cost=str(cost), text="".join(t for _, t in some))), told]
        parts += [] if told else [b"\n"]
    end = Told(finish="stop", events=2, cost=str(10 * (len(TOKENS) - first)))
    return b"".join([*parts, line(end), event(f"={paid + int(end.cost)}"), b"data: [DONE]\n\n"])


def text_of(events: list[bytes]) -> str:
    found = [one[6:] for one in events if one != b"data: [DONE]\n\n"]
    return "".join(json.loads(one)["choices"][0]["delta"]["content"] for one in found)


@given(st.lists(st.floats(0, 1), max_size=5), st.integers(1, 4), st.integers(1, 300), st.booleans())
def test_cut_anywhere_any_number_of_times(cuts: list[float], burst: int, size: int, crlf: bool) -> None:
    answer, text = Continued(), ""
    for cut in [*cuts, 1.0]:
        body = answer.body({"model": "m", "stream": True})
        answer.head(HEAD)
        data = stream(body, burst)
        data = data.replace(b"\n", b"\r\n") if crlf else data  # what a proxy may make of it
        data = data[: int(cut * len(data))]
        for at in range(0, len(data), size):
            text += text_of(answer.feed(data[at : at + size]))
        if answer.done:
            break
        assert text in ("", "!" + "".join(one for _, one in TOKENS[: len(answer.choices[0].ids)]))
        assert answer.able
        assert answer.cost == 10 * len(answer.choices[0].ids)
    assert text == f"!{WHOLE}={10 * len(TOKENS)}"
    assert answer.choices[0].ids == [token for token, _ in TOKENS]
    assert answer.choices[0].text == WHOLE
    assert answer.cost == 10 * len(TOKENS)


def test_the_rest_is_asked_for_under_what_the_first_gateway_made_of_it() -> None:
    answer = Continued()
    asked = {"model": "story", "seed": 5, "max_tokens": 3}
    assert answer.body(asked) == asked
    answer.head(HEAD)
    answer.feed(line(Told(0, 0, (4, 5), 1, prompt=9, cost="17")) + event("hi"))
    assert answer.begun
    body = answer.body(asked)
    assert {name: body[name] for name in asked} == asked
    rest = msgspec.convert(body["lading"], Rest)
    assert rest == Rest(HEAD["x-lading-agent"], JOB, 5, 1, [Begun(40, [4, 5], prompt=9)], "17", [JOB])


def test_a_server_that_tells_nothing_cannot_be_followed_by_another() -> None:
    answer = Continued()
    answer.head({})
    assert answer.able
    assert answer.feed(event("hello") + b'data: {"choi') == [event("hello")]
    assert answer.begun
    assert not answer.able
    assert answer.end() == [b'data: {"choi\n\n']


def test_a_gateway_that_does_not_know_how_is_left_for_another() -> None:
    answer = Continued()
    answer.head(HEAD)
    answer.feed(line(Told(0, 0, (4,), 1)) + event("hi"))
    answer.body({})
    with pytest.raises(ValueError, match="go on"):
        answer.head({})
    assert answer.able


def test_the_first_receipt_is_the_proof_and_the_last_one_counts() -> None:
    answer = Continued()
    answer.head(HEAD)
    answer.feed(line(Told(0, 0, (4, 5), 1)) + event("hi"))
    for tokens in (1, 33, 64):
        packed = make_receipt(output_tokens=tokens, job=from_hex(JOB, 32)).pack()
        marks = b"".join(bytes([tokens, n]) * 16 for n in range(2))
        answer.feed(line(Told(receipt=packed, marks=marks)) + b"\n")
    [last] = answer.receipts.values()
    assert last.packed == packed
    assert len(last.marks) == 1 + 1 + 2
    assert answer.choices[0].proof == make_receipt(output_tokens=1, job=from_hex(JOB, 32)).pack()


LIES = {
    "a token again": line(Told(0, 0, (5,), 1)),
    "a token left out": line(Told(0, 2, (5,), 1)),
    "more than it said": line(Told(0, 1, (5,) * 40, 1)),
    "another choice": line(Told(3, 0, (5,), 1)),
    "no tokens": b": lading {}garbage\n",
    "a cost below nothing": b': lading {"cost":"-5"}\n',
    "an id that is none": b': lading {"ids":[-1]}\n',
    "a word within a run": line(Told(0, 1, (5,), 2)) + event("x") + line(Told(0, 2, (6,), 1)),
    "more than was announced": line(Told(0, 1, (5,), 0)) + event("x"),
    "an event without a word": event("x"),
    "a receipt that is none": line(Told(receipt=b"short")),
    "a token with a receipt that is none": line(Told(0, 1, (5,), 1, receipt=b"short")) + event("x"),
    "a receipt of another job": line(Told(receipt=make_receipt().pack())) + b"\n",
}


@pytest.mark.parametrize("lie", LIES)
def test_who_lies_about_what_it_sends_is_not_believed(lie: str) -> None:
    answer = Continued()
    answer.head(HEAD)
    good = line(Told(0, 0, (4,), 1)) + event("a")
    assert answer.feed(good + LIES[lie] + event("b")) == [event("a")], "also where the lie came with it"
    assert answer.fault is not None
    assert answer.feed(line(Told(0, 1, (5,), 1)) + event("c")) == [], "and nothing after it"
    assert answer.choices[0].ids == [4]
    rest = msgspec.convert(answer.body({})["lading"], Rest)
    assert (rest.choices[0].ids, rest.events) == ([4], 1)


def test_an_event_without_an_end_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    from lading.core import continued

    monkeypatch.setattr(continued, "MOST_HELD", 1 << 16)
    answer = Continued()
    answer.head(HEAD)
    answer.feed(b"x" * (1 << 16))
    assert answer.fault is None
    answer.feed(b"x")
    assert "no end" in str(answer.fault)


@given(st.binary(max_size=200), st.booleans())
def test_whatever_a_server_sends_is_events_or_an_error_and_nothing_else(data: bytes, follows: bool) -> None:
    answer = Continued()
    answer.head(HEAD if follows else {})
    answer.feed(data + b"\n\n")
    assert all(len(one.ids) <= MAX_TOKENS and not one.ids for one in answer.choices)
