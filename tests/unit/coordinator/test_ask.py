"""Reading OpenAI requests: what is honoured, what is neutral, and that everything else names its parameter."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import job_id
from lading.core.options import Sampling
from lading_coordinator.core.ask import ChatAsk, chat_request, parse_chat, parse_embed
from lading_coordinator.errors import ApiError
from lading_protocol.ids import AgentId
from lading_protocol.messages import ChatRequest, Message, decode, encode
from lading_protocol.transcript import sha256

USER = [{"role": "user", "content": "hello"}]
AGENT = AgentId(b"\x01" * 32)


def chat(**changes: object) -> bytes:
    return json.dumps({"model": "m", "messages": USER} | changes).encode()


def test_reads_everything_it_honours() -> None:
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}], "name": "x"},
        {"role": "assistant", "content": "three", "tool_calls": None},
    ]
    ask = parse_chat(
        chat(
            messages=messages,
            max_tokens=5,
            temperature=0,
            top_p=0.5,
            seed=-1,
            stop="\n",
            stream=True,
            stream_options={"include_usage": True},
            user="me",
        )
    )
    assert ask == ChatAsk(
        "m",
        (Message("system", "be brief"), Message("user", "one two"), Message("assistant", "three")),
        5,
        Sampling(0.0, 0.5),
        -1,
        ("\n",),
        True,
        True,
    )


def test_the_newer_token_limit_wins() -> None:
    assert parse_chat(chat(max_tokens=5, max_completion_tokens=7)).max_tokens == 7


NEUTRAL = {
    "n": 1,
    "tools": [],
    "tool_choice": "auto",
    "logprobs": False,
    "logit_bias": {},
    "response_format": {"type": "text"},
    "presence_penalty": 0,
    "frequency_penalty": 0.0,
    "store": True,
    "metadata": {"a": "b"},
    "stop": None,
    "seed": None,
}


@pytest.mark.parametrize("name", NEUTRAL)
def test_neutral_values_ask_for_nothing(name: str) -> None:
    assert parse_chat(chat(**{name: NEUTRAL[name]})) == parse_chat(chat())


def held_to(schema: object, **about: object) -> dict[str, object]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema} | about}


BAD_CHAT = [
    ({"n": 2}, "n", "unsupported_parameter"),
    ({"tools": [{"type": "function"}]}, "tools", "unsupported_parameter"),
    ({"tool_choice": "required"}, "tool_choice", "unsupported_parameter"),
    ({"logprobs": True}, "logprobs", "unsupported_parameter"),
    ({"logit_bias": {"5": 101}}, "logit_bias", "invalid_value"),
    ({"logit_bias": {"5": True}}, "logit_bias", "invalid_value"),
    ({"logit_bias": {"fox": 1}}, "logit_bias", "invalid_value"),
    ({"logit_bias": {"-1": 1}}, "logit_bias", "invalid_value"),
    ({"logit_bias": {"5": 1, "05": 2}}, "logit_bias", "invalid_value"),
    ({"logit_bias": [1]}, "logit_bias", "invalid_value"),
    ({"logit_bias": {str(i): 1 for i in range(301)}}, "logit_bias", "invalid_value"),
    ({"response_format": {"type": "json_schema"}}, "response_format", "invalid_value"),
    ({"response_format": {"type": "xml"}}, "response_format", "invalid_value"),
    ({"response_format": "json_object"}, "response_format", "invalid_value"),
    ({"response_format": {"type": "json_object", "more": 1}}, "response_format", "invalid_value"),
    ({"response_format": held_to({"type": "string", "pattern": "a+"})}, "response_format", "invalid_value"),
    ({"response_format": held_to({"oneOf": [{}]})}, "response_format", "invalid_value"),
    ({"response_format": held_to({"enum": ["x" * 20_000]})}, "response_format", "invalid_value"),
    ({"response_format": held_to({"$ref": "#"})}, "response_format", "invalid_value"),
    ({"response_format": held_to({}, strict="yes")}, "response_format", "invalid_value"),
    ({"response_format": held_to({}, surprise=1)}, "response_format", "invalid_value"),
    ({"frequency_penalty": 2.1}, "frequency_penalty", "invalid_value"),
    ({"presence_penalty": "much"}, "presence_penalty", "invalid_type"),
    ({"repetition_penalty": 0}, "repetition_penalty", "invalid_value"),
    ({"min_p": 1.5}, "min_p", "invalid_value"),
    ({"top_k": -1}, "top_k", "invalid_value"),
    ({"top_k": 1.5}, "top_k", "invalid_type"),
    ({"audio": {"voice": "x"}}, "audio", "unsupported_parameter"),
    ({"surprise": 1}, "surprise", "unknown_parameter"),
    ({"model": ""}, "model", "missing_model"),
    ({"model": 3}, "model", "missing_model"),
    ({"messages": []}, "messages", "invalid_value"),
    ({"messages": "hi"}, "messages", "invalid_value"),
    ({"messages": [1]}, "messages[0]", "invalid_type"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "invalid_value"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "invalid_type"),
    ({"messages": [*USER, {"role": "user", "content": [{"type": "image_url"}]}]}, "messages[1].content[0]", None),
    ({"messages": [{"role": "assistant", "content": "", "tool_calls": [1]}]}, "messages[0].tool_calls", None),
    ({"messages": [{"role": "user", "content": "x" * 600_000}]}, "messages", "too_long"),
    ({"max_tokens": 0}, "max_tokens", "invalid_value"),
    ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
    ({"max_completion_tokens": 10**9}, "max_completion_tokens", "invalid_value"),
    ({"temperature": 2.5}, "temperature", "invalid_value"),
    ({"temperature": "hot"}, "temperature", "invalid_type"),
    ({"temperature": True}, "temperature", "invalid_type"),
    ({"top_p": 0}, "top_p", "invalid_value"),
    ({"seed": 2**64}, "seed", "invalid_value"),
    ({"seed": 1.0}, "seed", "invalid_type"),
    ({"stop": ["a"] * 5}, "stop", "invalid_value"),
    ({"stop": [""]}, "stop", "invalid_value"),
    ({"stop": 5}, "stop", "invalid_value"),
    ({"stream": "yes"}, "stream", "invalid_type"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
    ({"stream": True, "stream_options": {"else": 1}}, "stream_options", "invalid_value"),
]


@pytest.mark.parametrize(("change", "param", "code"), BAD_CHAT)
def test_every_refusal_names_its_parameter(change: dict[str, object], param: str, code: str | None) -> None:
    with pytest.raises(ApiError) as caught:
        parse_chat(chat(**change))
    assert (caught.value.status, caught.value.param) == (400, param)
    assert code is None or caught.value.code == code
    assert param.split("[")[0].split(".")[0] in caught.value.message


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"{'a': 1}", b"\xff\xfe", b"[" * 5000, b'{"a": NaN}'])
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    for parse in (parse_chat, parse_embed):
        with pytest.raises(ApiError) as caught:
            parse(body)
        assert caught.value.code == "malformed_json"


BAD_EMBED = [
    ({"input": []}, "input"),
    ({"input": ""}, "input[0]"),
    ({"input": [1, 2]}, "input[0]"),
    ({"input": ["ok", [1]]}, "input[1]"),
    ({"input": ["x"] * 257}, "input"),
    ({"encoding_format": "hex"}, "encoding_format"),
    ({"dimensions": 0}, "dimensions"),
    ({"temperature": 1}, "temperature"),
]


@pytest.mark.parametrize(("change", "param"), BAD_EMBED)
def test_embedding_refusals(change: dict[str, object], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_embed(json.dumps({"model": "m", "input": "a"} | change).encode())
    assert caught.value.param == param


def test_embedding_inputs() -> None:
    assert parse_embed(b'{"model":"m","input":"a"}').inputs == ("a",)
    asked = parse_embed(b'{"model":"m","input":["a","b"],"encoding_format":"base64"}')
    assert (asked.inputs, asked.base64) == (("a", "b"), True)


def test_a_seed_repeats_and_is_bound_to_the_agent() -> None:
    ask = parse_chat(chat(seed=5))
    one = chat_request(ask, AGENT, b"\x00" * 32, 64)
    two = chat_request(ask, AGENT, b"\x11" * 32, 64)
    other = chat_request(ask, AgentId(b"\x02" * 32), b"\x00" * 32, 64)
    assert one == two
    assert one.sampler.seed == sha256(b"lading/seed/1" + AGENT + (5).to_bytes(8, "big"))
    assert other.sampler.seed != one.sampler.seed
    assert chat_request(parse_chat(chat()), AGENT, job_id("x"), 64).sampler.seed == job_id("x")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NAMES = (
    "model",
    "messages",
    "max_tokens",
    "temperature",
    "stop",
    "stream",
    "stream_options",
    "seed",
    "n",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "repetition_penalty",
    "logit_bias",
    "response_format",
)


@given(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=5))
def test_whatever_passes_can_be_sent_to_a_host(tree: dict[str, object]) -> None:
    """Arbitrary values either raise ApiError or give a request that the wire's own limits accept."""
    try:
        ask = parse_chat(json.dumps({"model": "m", "messages": USER} | tree).encode())
    except ApiError:
        return
    request = chat_request(ask, AGENT, bytes(32), 64)
    assert decode(ChatRequest, encode(request)) == request
