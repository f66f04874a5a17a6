"""What few chats ask for: how likely tokens were, tools in the prompt, and a prompt without markup."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.engines import tiny_llama
from lading_node.core.chances import chance
from lading_node.core.tools import BadTools, tools_of, turns_of, written
from lading_node.engines.chat import Chat
from lading_node.engines.errors import EngineError
from lading_node.engines.generation import Generation
from lading_node.engines.port import Failed, Finished, Generate, Run
from lading_node.engines.rich import least_tokens, prompt_ids
from lading_node.engines.template import compile_template
from lading_node.engines.toy import ToyModel
from lading_protocol.messages import Chance, ChatRequest, Message, RichChat, Sampler
from lading_protocol.parts import LlmShape
from lading_protocol.pricing import prompt_bound

TOY = ToyModel("toy")
GREEDY = Sampler(bytes(32), 0.0)
HELLO = (Message("system", "Be brief."), Message("user", "Weather in Zürich?"))
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
CALLED = {"tool_calls": [{"id": "c", "type": "function", "function": {"name": "weather", "arguments": {"a": 1}}}]}


def rich(
    messages: tuple[Message, ...] = HELLO, max_tokens: int = 20, sampler: Sampler = GREEDY, **more: Any
) -> RichChat:
    return RichChat(messages, max_tokens, sampler, **more)


def listed(*tools: object) -> bytes:
    return json.dumps(list(tools)).encode()


def run(request: ChatRequest, emitted: tuple[int, ...] = ()) -> tuple[list[int], list[Chance], Any]:
    work = Generation(TOY, Generate("a", request, emitted), 1 << 16)
    while not work.done:
        work.step()
    ids: list[int] = []
    chances: list[Chance] = []
    for event in work.take():
        if isinstance(event, Run):
            assert len(event.chances) in (0, len(event.ids))
            ids += event.ids
            chances += event.chances
    return ids, chances, event


# How likely


@given(st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=40), st.integers(0, 20), st.data())
def test_chances_are_the_logarithms_of_shares(row: list[float], likely: int, data: st.DataObject) -> None:
    logits = np.array(row, dtype=np.float32)
    token = data.draw(st.integers(0, len(row) - 1))
    found = chance(logits, token, likely, [b"%d" % i for i in range(len(row))])
    total = math.log(math.fsum(math.exp(x) for x in logits.tolist()))
    assert found.logprob == pytest.approx(min(0.0, float(logits[token]) - total), abs=1e-9)
    best = sorted(range(len(row)), key=lambda i: (-float(logits[i]), i))[:likely]
    assert [int(piece) for _, piece in found.top] == best


def test_what_no_number_can_hold_is_bounded() -> None:
    found = chance(np.array([0.0, -np.inf], dtype=np.float32), 1, 2, [b"a"])
    assert found == Chance(-9999.0, b"", ((0.0, b"a"), (-9999.0, b"")))


def test_chances_come_with_the_same_tokens_and_fit_into_frames() -> None:
    plain = ChatRequest(HELLO, 200, Sampler(b"\x05" * 32, 0.9))
    ids, none, _ = run(plain)
    told, chances, _ = run(RichChat(HELLO, 200, plain.sampler, logprobs=3))
    assert (told, none) == (ids, [])
    assert len(chances) == len(ids)
    assert all(len(one.top) == 2 and one.logprob <= one.top[0][0] <= 0 for one in chances)
    work = Generation(TOY, Generate("a", rich(max_tokens=300, sampler=Sampler(b"\x01" * 32), logprobs=21)), 1 << 16)
    while not work.done:
        work.step()
    assert max(len(event.ids) for event in work.take() if isinstance(event, Run)) <= 64


def test_a_resume_tells_of_its_own_tokens_only() -> None:
    request = RichChat(HELLO, 60, Sampler(b"\x05" * 32, 0.9), logprobs=2)
    ids, chances, _ = run(request)
    rest, later, end = run(request, tuple(ids[:7]))
    assert isinstance(end, Finished)
    assert (rest, later) == (ids[7:], chances[7:])


# Prompts


def test_a_bare_prompt_has_no_markup() -> None:
    empty = (Message("user", ""),)
    assert prompt_ids(TOY, rich(empty, prompt="fox")) == TOY.plain("fox")
    assert prompt_ids(TOY, rich(empty, prompt=(3, 1, 2))) == [3, 1, 2]
    assert run(rich(empty, prompt=(3, 1, 2)))[0]
    for request in (rich(HELLO, prompt="fox"), rich(empty, prompt="fox", tools=listed(TOOL))):
        with pytest.raises(EngineError, match="beside"):
            prompt_ids(TOY, request)
    with pytest.raises(EngineError, match="vocabulary"):
        prompt_ids(TOY, rich(empty, prompt=(TOY.vocab,)))


def test_tools_that_the_markup_does_not_know() -> None:
    """Where a call must be made they are described; a model that should choose is not asked."""
    with pytest.raises(EngineError, match="knows no tools") as caught:
        prompt_ids(TOY, rich(tools=listed(TOOL)))
    assert caught.value.failure == "invalid_request"
    forced = rich(tools=listed(TOOL), sampler=Sampler(bytes(32), 0.0, grammar=b'{"type":"object"}'))
    messages = written(forced)
    assert [one.role for one in messages] == ["system", "user"]
    assert messages[0].content.startswith("Be brief.\n\n")
    assert '"name": "weather"' in messages[0].content
    assert prompt_ids(TOY, forced) == TOY.prompt(messages)


def test_calls_made_before_are_written_as_hermes_has_them() -> None:
    talk = (*HELLO, Message("assistant", ""), Message("tool", "sunny"))
    turns = ((2, json.dumps(CALLED).encode()), (3, b'{"tool_call_id":"c"}'))
    messages = written(rich(talk, turns=turns))
    assert [(one.role, one.content) for one in messages[2:]] == [
        ("assistant", '<tool_call>\n{"name": "weather", "arguments": {"a": 1}}\n</tool_call>'),
        ("user", "<tool_response>\nsunny\n</tool_response>"),
    ]


@pytest.mark.parametrize(
    "turns",
    [
        ((9, b"{}"),),
        ((0, b"[]"),),
        ((0, b'{"role":"system"}'),),
        ((0, b"{"),),
        ((0, b'{"tool_calls":[1]}'),),
        ((0, b'{"tool_calls":[{"function":{"name":"f"}}]}'),),
        ((0, b'{"tool_calls":5}'),),
        ((0, b"[" * 100),),
    ],
)
def test_turns_that_do_not_read(turns: Any) -> None:
    with pytest.raises(BadTools):
        written(rich(turns=turns))
    assert isinstance(run(rich(turns=turns))[2], Failed)


@pytest.mark.parametrize("tools", [b"{}", b"[1]", b"[", b"\xff"])
def test_tools_that_do_not_read(tools: bytes) -> None:
    with pytest.raises(BadTools):
        tools_of(rich(tools=tools))
    assert isinstance(run(rich(tools=tools))[2], Failed)


# A template that knows tools

HERMES = (
    "{{ bos_token }}{% if tools %}<|system|>{% for tool in tools %}{{ tool | tojson(indent=4) }}\n{% endfor %}"
    "Call as <tool_call>{name, arguments}</tool_call>{{ eos_token }}{% endif %}"
    "{% for message in messages %}{{ '<|' ~ message.role ~ '|>' ~ message.content }}"
    "{% for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}"
    "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SHAPE = LlmShape(layers=1, heads=1, kv_heads=1, head_size=4, hidden=4, vocab=320, eos=(1,), bos=0)


def chat(template: str, special: bool = False) -> Chat:
    tokenizer = tiny_llama.tokenizer()
    if special:
        tokenizer.add_special_tokens(["<tool_call>"])
    return Chat(tokenizer.to_str().encode(), template.encode(), SHAPE, is_markup=False)


def test_a_template_that_knows_tools_gets_them_and_the_calls() -> None:
    made = chat(HERMES)
    talk = (*HELLO, Message("assistant", ""), Message("tool", "sunny"))
    request = rich(talk, tools=listed(TOOL), turns=((2, json.dumps(CALLED).encode()), (3, b'{"tool_call_id":"c"}')))
    ids = made.with_tools(turns_of(request), tools_of(request))
    assert ids is not None
    text = b"".join(made.pieces[i] for i in ids).decode()
    assert '"name": "weather"' in text
    assert '<tool_call>{"name": "weather", "arguments": {"a": 1}}</tool_call>' in text
    assert len(ids) <= prompt_bound(request)


@pytest.mark.parametrize(
    "made",
    [
        chat(tiny_llama.JINJA),
        chat(HERMES.replace("<tool_call>", "[TOOL_CALLS]")),
        chat(HERMES, special=True),
        Chat(tiny_llama.tokenizer().to_str().encode(), json.dumps(tiny_llama.MARKUP).encode(), SHAPE, is_markup=True),
    ],
    ids=["no tools", "another form", "marks without text", "markup"],
)
def test_markup_whose_calls_nobody_could_find_takes_no_tools(made: Chat) -> None:
    request = rich(tools=listed(TOOL))
    assert made.with_tools(turns_of(request), tools_of(request)) is None


# As the Qwen family has it.
QWEN = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are helpful.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>\\nReturn <tool_call>\\n{\\"name\\": <function-name>}\\n</tool_call><|im_end|>\\n" }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""


def test_a_template_of_a_large_family() -> None:
    template = compile_template(QWEN)
    assert template.takes_tools
    described = {**TOOL["function"], "description": "It's <hot> & dry?"}  # type: ignore[dict-item]
    request = rich(
        (*HELLO, Message("assistant", ""), Message("tool", "sunny"), Message("tool", "warm")),
        tools=listed({"type": "function", "function": described}),
        turns=((2, json.dumps(CALLED).encode()), (3, b'{"tool_call_id":"c"}'), (4, b'{"tool_call_id":"d"}')),
    )
    text = template.render(turns_of(request), tools_of(request))
    assert '"description": "It\'s <hot> & dry?"' in text
    assert '<tool_call>\n{"name": "weather", "arguments": {"a": 1}}\n</tool_call><|im_end|>' in text
    assert "<tool_response>\nsunny\n</tool_response>\n<tool_response>\nwarm\n</tool_response><|im_end|>" in text
    assert len(text.encode()) <= prompt_bound(request)


def test_a_template_still_renders_plain_chats_as_ever() -> None:
    assert chat(HERMES).prompt(HELLO) == chat(tiny_llama.JINJA).prompt(HELLO)


@given(st.text(max_size=200))
def test_the_cheap_bound_is_never_above_the_prompt(text: str) -> None:
    if not text:
        return
    made = chat(tiny_llama.JINJA)
    assert made.least_tokens([Message("user", text)]) <= len(made.plain(text))
    assert least_tokens(TOY, rich((Message("user", ""),), prompt=(1, 2, 3))) == 3
