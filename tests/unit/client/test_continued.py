"""An answer that is cut anywhere in its bytes goes on behind exactly what was handed out."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading.core.continued import Continued

HEAD = {"x-lading-agent": "0xaa", "x-lading-max-tokens": "40"}
# Tokens and the text that each releases: some none (half a character, a held stop), some of several bytes.
TOKENS = [
    (n * 7, text) for n, text in enumerate(["a ", "", "é", '{"x": 1}', "", "\n", "b\r\nc", "data: ", "€", "z"] * 3)
]
WHOLE = "".join(text for _, text in TOKENS)


def stream(first: int, burst: int) -> bytes:
    """What a gateway sends from token `first` on."""
    parts = []
    for at in range(first, len(TOKENS), burst):
        some = TOKENS[at : at + burst]
        text = "".join(one for _, one in some)
        parts.append(f": tokens {at} {','.join(str(token) for token, _ in some)}\n")
        parts.append(f"data: {json.dumps({'choices': [{'delta': {'content': text}}]})}\n\n" if text else "\n")
    return "".join(parts).encode()


def read(answer: Continued, data: bytes, *, whole: bool) -> str:
    """Lines as an HTTP client gives them: the last one only if it is whole, or the stream ended well."""
    text = ""
    lines = data.decode(errors="ignore").split("\n")
    if not whole:
        lines = lines[:-1]
    for line in lines:
        event = answer.line(line)
        if event is not None:
            text += event["choices"][0]["delta"]["content"]
    return text


@given(st.lists(st.floats(0, 1), max_size=5), st.integers(1, 4))
def test_cut_anywhere_any_number_of_times(cuts: list[float], burst: int) -> None:
    answer, text = Continued(), ""
    for cut in cuts:
        body = answer.body({"model": "m", "stream": True})
        answer.head(HEAD)
        first = len(body.get("lading", {}).get("emitted", []))
        assert first == answer.given == len(answer.ids)
        data = stream(first, burst)
        text += read(answer, data[: int(cut * len(data))], whole=False)
        assert text == "".join(one for _, one in TOKENS[: len(answer.ids)])
        assert answer.able
    answer.body({"model": "m"})
    text += read(answer, stream(len(answer.ids), burst), whole=True)
    assert text == WHOLE
    assert answer.ids == [token for token, _ in TOKENS]


def test_the_rest_is_asked_for_under_what_the_first_gateway_made_of_it() -> None:
    answer = Continued()
    assert answer.body({"model": "story", "seed": 5}) == {"model": "story", "seed": 5}
    answer.head(HEAD)
    read(answer, stream(0, 1)[:120], whole=False)
    assert answer.begun
    body = answer.body({"model": "story", "seed": 5})
    assert body == {"model": "0xaa", "max_tokens": 40, "seed": 5, "lading": {"emitted": answer.ids}}


def test_a_server_that_tells_no_tokens_cannot_be_followed_by_another() -> None:
    answer = Continued()
    answer.head({})
    assert answer.able
    answer.line('data: {"choices": [{"delta": {"content": "hello"}}]}')
    assert answer.begun
    assert not answer.able


def test_a_gateway_that_skips_or_repeats_tokens_is_not_believed() -> None:
    for first in (0, 2):
        answer = Continued()
        answer.head(HEAD)
        answer.line(": tokens 0 5")
        answer.line("")
        answer.line(f": tokens {first} 5")
        with pytest.raises(ValueError, match="where 1 is next"):
            answer.line("")


@given(st.text(max_size=60))
def test_whatever_a_server_sends_is_an_event_or_an_error_and_nothing_else(line: str) -> None:
    answer = Continued()
    try:
        event = answer.line(line)
    except (msgspec.MsgspecError, LookupError, TypeError, ValueError, AttributeError):
        return
    assert event is None or isinstance(event, dict)
    assert answer.ids == []
