"""Reading OpenAI requests: what is honoured, what is neutral, and that everything else names its parameter."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factories import job_id
from lading.core.options import Sampling
from lading_coordinator.core.ask import (
    ChatAsk,
    chat_request,
    chat_requests,
    parse_chat,
    parse_completion,
    parse_embed,
)
from lading_coordinator.core.response_ask import parse_response
from lading_coordinator.errors import ApiError
from lading_protocol.ids import AgentId
from lading_protocol.messages import ChatRequest, Message, Request, RichChat, decode, encode
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


def tool(name: str, **about: object) -> dict[str, object]:
    return {"type": "function", "function": {"name": name} | about}


def named(name: str) -> dict[str, object]:
    return {"type": "function", "function": {"name": name}}


def called(name: object = "f", arguments: str = "{}") -> dict[str, object]:
    return {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}


def said(*calls: object) -> dict[str, object]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


BAD_CHAT = [
    ({"n": 0}, "n", "invalid_value"),
    ({"n": 17}, "n", "invalid_value"),
    ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
    ({"logprobs": 1}, "logprobs", "invalid_type"),
    ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
    ({"tools": {}}, "tools", "invalid_type"),
    ({"tools": [{"type": "function"}]}, "tools[0]", "invalid_value"),
    ({"tools": [{"type": "web_search"}]}, "tools[0]", "unsupported_parameter"),
    ({"tools": [tool("f"), tool("f")]}, "tools", "invalid_value"),
    ({"tools": [tool("no spaces")]}, "tools[0]", "invalid_value"),
    ({"tools": [tool("f", surprise=1)]}, "tools[0]", "invalid_value"),
    ({"tools": [tool("f", parameters=[])]}, "tools[0]", "invalid_value"),
    ({"tools": [tool("f", description="x" * 70_000)]}, "tools", "invalid_value"),
    ({"tools": [tool(f"f{i}") for i in range(65)]}, "tools", "invalid_value"),
    ({"tools": [tool("f")], "tool_choice": named("g")}, "tool_choice", "invalid_value"),
    ({"tools": [tool("f")], "tool_choice": "sometimes"}, "tool_choice", "invalid_value"),
    ({"tools": [tool("f", parameters={"pattern": "a"})], "tool_choice": "required"}, "tools", "invalid_value"),
    ({"tools": [tool("f")], "response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
    ({"tools": [tool("f")], "parallel_tool_calls": False, "stop": ["a", "b", "c", "d"]}, "stop", "invalid_value"),
    ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
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
    ({"messages": [{"role": "function", "content": "x"}]}, "messages[0].role", "invalid_value"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "invalid_value"),
    ({"messages": [{"role": "user", "content": "x", "tool_calls": [1]}]}, "messages[0].tool_calls", None),
    ({"messages": [said(called(arguments="{"))]}, "messages[0].tool_calls[0]", "invalid_value"),
    ({"messages": [said(called(arguments="[1]"))]}, "messages[0].tool_calls[0]", "invalid_value"),
    ({"messages": [said(called(name=5))]}, "messages[0].tool_calls[0]", "invalid_value"),
    ({"messages": [said(*[called()] * 65)]}, "messages[0].tool_calls", "invalid_value"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "invalid_type"),
    ({"messages": [*USER, {"role": "user", "content": [{"type": "image_url"}]}]}, "messages[1].content[0]", None),
    ({"messages": [{"role": "assistant", "content": "", "tool_calls": [1]}]}, "messages[0].tool_calls[0]", None),
    ({"messages": [{"role": "user", "content": "x" * 600_000}]}, "messages", "too_long"),
    ({"messages": [{"role": "user", "content": "🦊" * 140_000}]}, "messages", "too_long"),
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
    "tools",
    "tool_choice",
    "logprobs",
    "top_logprobs",
)


@given(st.dictionaries(st.sampled_from(NAMES), JSON, max_size=5))
def test_whatever_passes_can_be_sent_to_a_host(tree: dict[str, object]) -> None:
    """Arbitrary values either raise ApiError or give a request that the wire's own limits accept."""
    try:
        ask = parse_chat(json.dumps({"model": "m", "messages": USER} | tree).encode())
    except ApiError:
        return
    request = chat_request(ask, AGENT, bytes(32), 64)
    assert decode(Request, encode(request)) == request


def requests(**changes: object) -> list[ChatRequest]:
    return chat_requests(parse_chat(chat(**changes)), AGENT, bytes(32), 64)


def test_each_choice_is_a_request_of_its_own_and_the_first_is_what_it_would_be_alone() -> None:
    three, one = requests(n=3, seed=5), requests(seed=5)
    assert three[0] == one[0]
    assert len({request.sampler.seed for request in three}) == 3
    assert three == requests(n=3, seed=5)
    alike = [msgspec.structs.replace(request, sampler=three[0].sampler) for request in three]
    assert alike == [three[0]] * 3


def test_a_plain_chat_stays_a_plain_request() -> None:
    assert type(requests(n=2, tools=[], tool_choice="none", logprobs=False)[1]) is ChatRequest


def test_a_call_that_must_be_made_is_held_to_every_offered_functions_schema() -> None:
    deep = {"$ref": "#/$defs/node"}
    node = {
        "type": "object",
        "properties": {"next": deep, "default": {"$ref": "#"}},
        "required": [],
        "additionalProperties": False,
    }
    tools = [tool("walk", parameters=node | {"$defs": {"node": node}}), tool("stop")]
    (request,) = requests(tools=tools, tool_choice="required")
    grammar = json.loads(request.sampler.grammar)
    assert [one["properties"]["name"]["const"] for one in grammar["anyOf"]] == ["walk", "stop"]
    assert grammar["$defs"]["walk"]["properties"]["next"] == {"$ref": "#/$defs/walk/$defs/node"}
    assert grammar["$defs"]["walk"]["properties"]["default"] == {"$ref": "#/$defs/walk"}
    assert grammar["$defs"]["stop"]["properties"] == {}
    (alone,) = requests(tools=tools, tool_choice=named("stop"))
    assert [one["properties"]["name"]["const"] for one in json.loads(alone.sampler.grammar)["anyOf"]] == ["stop"]
    assert isinstance(alone, RichChat)
    assert [one["function"]["name"] for one in json.loads(alone.tools)] == ["stop"]


def test_one_call_only_ends_behind_the_call() -> None:
    (request,) = requests(tools=[tool("f")], parallel_tool_calls=False, stop="x")
    assert request.stop == ("x", "</tool_call>")


BAD_COMPLETION = [
    ({"prompt": None}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [1, -1]}, "prompt"),
    ({"prompt": [1, True]}, "prompt"),
    ({"prompt": [1, 2**32]}, "prompt"),
    ({"prompt": ["a", ""]}, "prompt[1]"),
    ({"prompt": [[1], [1.5]]}, "prompt[1]"),
    ({"prompt": ["x"] * 17}, "prompt"),
    ({"prompt": "x" * 600_000}, "prompt"),
    ({"echo": True}, "echo"),
    ({"suffix": "x"}, "suffix"),
    ({"best_of": 2}, "best_of"),
    ({"logprobs": 21}, "logprobs"),
    ({"messages": USER}, "messages"),
]


@pytest.mark.parametrize(("change", "param"), BAD_COMPLETION)
def test_completion_refusals(change: dict[str, object], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_completion(json.dumps({"model": "m", "prompt": "a"} | change).encode())
    assert caught.value.param == param


def test_completion_prompts() -> None:
    ask = parse_completion(b'{"model":"m","prompt":[[1,2],[3]],"n":2,"seed":1,"logprobs":0}')
    made = chat_requests(ask, AGENT, bytes(32), 64)
    assert [one.prompt for one in made if isinstance(one, RichChat)] == [(1, 2), (1, 2), (3,), (3,)]
    assert made[0].sampler.seed == made[2].sampler.seed != made[1].sampler.seed
    assert [one.logprobs for one in made if isinstance(one, RichChat)] == [1] * 4
    fresh = chat_requests(msgspec.structs.replace(ask, seed=None), AGENT, bytes(32), 64)
    assert len({one.sampler.seed for one in fresh}) == 4


BAD_RESPONSE = [
    ({"input": None}, "input"),
    ({"input": []}, "input"),
    ({"input": [{"type": "reasoning", "summary": []}]}, "input[0]"),
    ({"input": [{"type": "function_call", "call_id": "c", "name": "f"}]}, "input[0].tool_calls[0]"),
    ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].tool_call_id"),
    ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
    ({"instructions": 5}, "instructions"),
    ({"store": True}, "store"),
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"conversation": "c"}, "conversation"),
    ({"background": True}, "background"),
    ({"reasoning": {"effort": "high"}}, "reasoning"),
    ({"include": ["file_search_call.results"]}, "include"),
    ({"text": {"format": {"type": "xml"}}}, "text.format"),
    ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format"),
    ({"text": {"verbosity": "high"}}, "text"),
    ({"tools": [{"type": "web_search"}]}, "tools[0]"),
    ({"stream_options": {"include_usage": True}}, "stream_options"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"max_tokens": 5}, "max_tokens"),
]


@pytest.mark.parametrize(("change", "param"), BAD_RESPONSE)
def test_response_refusals(change: dict[str, object], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_response(json.dumps({"model": "m", "input": "a"} | change).encode())
    assert caught.value.param == param


def test_a_response_is_read_as_the_chat_that_it_is() -> None:
    tree = {
        "model": "m",
        "instructions": "be brief",
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]},
            {
                "type": "function_call",
                "id": "fc_1",
                "call_id": "c",
                "name": "f",
                "arguments": "{}",
                "status": "completed",
            },
            {"type": "function_call_output", "call_id": "c", "output": "fine"},
        ],
        "text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "null"}, "strict": True}},
        "max_output_tokens": 9,
        "store": False,
    }
    (request,) = chat_requests(parse_response(json.dumps(tree).encode()).chat, AGENT, bytes(32), 64)
    assert [(one.role, one.content) for one in request.messages] == [
        ("system", "be brief"),
        ("user", "hello"),
        ("assistant", ""),
        ("tool", "fine"),
    ]
    assert isinstance(request, RichChat)
    assert [at for at, _ in request.turns] == [2, 3]
    assert (request.sampler.grammar, request.max_tokens) == (b'{"type":"null"}', 9)


@given(st.dictionaries(st.sampled_from(("tools", "tool_choice", "text", "input", "include", "n")), JSON, max_size=4))
def test_whatever_response_passes_can_be_sent_to_a_host(tree: dict[str, object]) -> None:
    try:
        ask = parse_response(json.dumps({"model": "m", "input": "x"} | tree).encode())
    except ApiError:
        return
    for request in chat_requests(ask.chat, AGENT, bytes(32), 64):
        assert decode(Request, encode(request)) == request
