"""Bias, penalties and grammars over whole answers of an engine: resumed anywhere, audited, refused in words."""

import json
import math
import time
from typing import Any

import numpy as np
import pytest

from lading_node.core.mask import Masks
from lading_node.core.vocabulary import Vocabulary
from lading_node.engines.generation import Generation, score
from lading_node.engines.model import margins, shaper_of
from lading_node.engines.port import Failed, Finished, Generate, Run, Score, Scored
from lading_node.engines.toy import ToyModel
from lading_protocol.errors import BadMessage, BadSchema
from lading_protocol.messages import ChatRequest, Message, Sampler, decode, encode
from lading_protocol.schema import ANY_OBJECT, read_schema

PERSON = json.dumps(
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"enum": ["old", "small", "red"]}, "maxItems": 3},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    }
).encode()
SETTINGS: dict[str, dict[str, Any]] = {
    "grammar": {"grammar": PERSON},
    "grammar, greedy": {"grammar": PERSON, "temperature": 0.0},
    "penalties": {"presence": 1.0, "frequency": 0.5},
    "repetition": {"repetition": 1.4},
    "bias": {"bias": ((0, 5.0), (3, -100.0))},
    "all": {
        "grammar": PERSON,
        "presence": 0.5,
        "frequency": 0.2,
        "repetition": 1.2,
        "bias": ((0, 5.0),),
        "min_p": 0.01,
        "top_k": 50,
        "top_p": 0.9,
    },
}


def asked(max_tokens: int = 120, **how: Any) -> ChatRequest:
    return ChatRequest((Message("user", "the old fox"),), max_tokens, Sampler(b"\x05" * 32, **how))


def answered(model: ToyModel, request: ChatRequest, emitted: tuple[int, ...] = ()) -> tuple[list[int], str, Any]:
    work = Generation(model, Generate("a", request, emitted), 4096)
    ids, text, end = list(emitted), "", None
    while not work.done:
        work.step()
        for event in work.take():
            if isinstance(event, Run):
                ids += event.ids
                text += event.text
            elif isinstance(event, Finished | Failed):
                end = event
    return ids, text, end


@pytest.mark.parametrize("name", SETTINGS)
def test_an_answer_resumed_anywhere_and_audited_from_anywhere_is_the_same(name: str) -> None:
    request = asked(40, **SETTINGS[name])
    ids, text, end = answered(ToyModel("toy"), request)
    assert isinstance(end, Finished)
    assert ids != answered(ToyModel("toy"), asked(40, temperature=request.sampler.temperature))[0]
    for at in range(0, len(ids), 3):
        again, rest, _ = answered(ToyModel("toy"), request, tuple(ids[:at]))
        assert again == ids
        assert text.endswith(rest)
        found = score(ToyModel("toy"), Score("b", request, tuple(ids), at), 4096)
        assert isinstance(found, Scored)
        assert set(found.margins) == {0.0}


@pytest.mark.parametrize("name", ["grammar", "grammar, greedy", "all"])
def test_a_json_answer_stops_when_it_is_whole(name: str) -> None:
    ids, text, end = answered(ToyModel("toy"), asked(400, **SETTINGS[name]))
    found = json.loads(text)
    assert end == Finished("a", "stop", len(ids))
    assert ids[-1] in ToyModel.ends
    assert 1 <= len(found["name"]) <= 12
    assert 0 <= found["age"] <= 150
    assert set(found.get("tags", [])) <= {"old", "small", "red"}


def test_any_object_at_all() -> None:
    _, text, end = answered(ToyModel("toy"), asked(2000, grammar=ANY_OBJECT, bias=((ToyModel.vocab - 4, 0.0),)))
    assert isinstance(end, Finished)
    if end.finish == "stop":
        assert isinstance(json.loads(text), dict)


def test_presence_forbids_what_was_said_and_repetition_what_was_asked() -> None:
    model = ToyModel("toy")
    ids, _, _ = answered(model, asked(18, presence=2.0, frequency=2.0, temperature=0.0))
    often, _, _ = answered(model, asked(18, presence=-2.0, frequency=-2.0, temperature=0.0))
    assert len(set(ids)) > len(set(often))
    prompt = model.prompt(asked().messages)
    row = np.full(model.vocab, 2, dtype=np.float32)
    for how, halved in (({"repetition": 2.0}, {*prompt, 3}), ({"presence": 1.0}, {3})):
        shaper = shaper_of(model, Sampler(bytes(32), **how), prompt, [3])
        assert shaper is not None
        shaped, _ = shaper.shape(row)
        assert set(np.flatnonzero(shaped == 1).tolist()) == halved
        assert set(np.flatnonzero(shaped == 2).tolist()) == set(range(model.vocab)) - halved


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"bias": ((ToyModel.vocab, 1.0),)}, "vocabulary"),
        ({"bias": ((5, 1.0), (5, 1.0))}, "rising"),
        ({"grammar": b"{"}, "JSON"),
        ({"grammar": b'{"type":"string","format":"date"}'}, "format"),
    ],
)
def test_what_cannot_be_honoured_is_the_requests_fault(how: dict[str, Any], words: str) -> None:
    """For a host, and for an auditor: nobody could have served it."""
    _, _, end = answered(ToyModel("toy"), asked(**how))
    found = score(ToyModel("toy"), Score("b", asked(**how), (1, 2), 0), 4096)
    for failed in (end, found):
        assert isinstance(failed, Failed)
        assert failed.code == "invalid_request"
        assert words in failed.message


def test_tokens_that_the_grammar_bars_are_infinitely_wrong() -> None:
    request = asked(grammar=PERSON)
    ids, _, _ = answered(ToyModel("toy"), request)
    for at in (0, 4, len(ids) - 1):
        forged = (*ids[:at], 2, *ids[at + 1 :])
        found = score(ToyModel("toy"), Score("b", request, forged, 0), 4096)
        assert isinstance(found, Scored)
        assert set(found.margins[:at]) <= {0.0}
        assert found.margins[at] == math.inf
        _, _, end = answered(ToyModel("toy"), request, forged)
        assert isinstance(end, Failed)
        assert end.code == "invalid_request"


@pytest.mark.parametrize("name", ["penalties", "repetition", "bias", "all"])
def test_a_host_that_ignores_a_setting_is_seen(name: str) -> None:
    request = asked(40, **SETTINGS[name])
    model = ToyModel("toy")
    plain, _, _ = answered(model, asked(40))
    assert max(margins(model, model.prompt(request.messages), plain, 0, request.sampler)) > 0.5


WIRE: list[dict[str, Any]] = [
    {"min_p": -0.1},
    {"min_p": 1.1},
    {"min_p": math.nan},
    {"presence": 2.1},
    {"frequency": -math.inf},
    {"repetition": 0.0},
    {"repetition": math.nan},
    {"bias": ((-1, 1.0),)},
    {"bias": ((2**32, 1.0),)},
    {"bias": ((1, 100.5),)},
    {"bias": ((1, math.nan),)},
    {"bias": tuple((i, 1.0) for i in range(301))},
    {"bias": ((1, 1.0, 1.0),)},
    {"grammar": b"x" * 16385},
]


@pytest.mark.parametrize("how", WIRE)
def test_the_wire_bounds_every_setting(how: dict[str, Any]) -> None:
    with pytest.raises(BadMessage):
        decode(Sampler, encode(Sampler(bytes(32), **how)))


BAD_SCHEMAS: dict[str, Any] = {
    "no schema": 5,
    "a false one": False,
    "unknown keyword": {"type": "object", "patternProperties": {}},
    "one of": {"oneOf": [{"type": "string"}]},
    "pattern": {"type": "string", "pattern": "a*"},
    "a remote reference": {"$ref": "https://example.org/schema"},
    "a lost reference": {"$ref": "#/$defs/x"},
    "only itself": {"$ref": "#"},
    "a ring": {"anyOf": [{"$ref": "#/$defs/a"}], "$defs": {"a": {"$ref": "#"}}},
    "no end": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    "an endless list": {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
    "a required stranger": {"type": "object", "required": ["a"]},
    "rules of another type": {"type": "string", "minimum": 1},
    "rules without a type": {"minLength": 1},
    "bounds that cross": {"type": "integer", "minimum": 5, "maximum": 4},
    "lengths that cross": {"type": "string", "minLength": 5, "maxLength": 4},
    "too many items": {"type": "array", "minItems": 10**9},
    "items that are missing": {"type": "array", "prefixItems": [{}], "items": False, "minItems": 2},
    "a huge bound": {"type": "integer", "minimum": 10**30},
    "a broken bound": {"type": "integer", "minimum": 0.5},
    "no type": {"type": []},
    "a wrong type": {"type": "date"},
    "an empty enum": {"enum": []},
    "an enum of another type": {"enum": [1], "type": "string"},
    "a rule beside a reference": {"$ref": "#/$defs/a", "type": "string", "$defs": {"a": {}}},
    "many alternatives": {"anyOf": [{}] * 65},
    "two of all": {"allOf": [{}, {"type": "string"}]},
    "a long name": {"type": "object", "properties": {"n" * 511: {}}},
    "a long value": {"const": ["x" * 600]},
    "odd properties": {"type": "object", "properties": [1]},
}


@pytest.mark.parametrize("name", BAD_SCHEMAS)
def test_schemas_that_are_refused(name: str) -> None:
    with pytest.raises(BadSchema) as caught:
        read_schema(json.dumps(BAD_SCHEMAS[name]).encode())
    assert caught.value.message.endswith(".")


@pytest.mark.parametrize("data", [b"", b"\xff", b"[" * 9000, b'{"a":' * 70 + b"1" + b"}" * 70, b'{"const":"\\ud800"}'])
def test_bytes_that_are_no_schema(data: bytes) -> None:
    with pytest.raises(BadSchema):
        read_schema(data)


def chain(length: int) -> dict[str, Any]:
    links = {f"a{i}": {"$ref": f"#/$defs/a{i + 1}"} for i in range(length)}
    return {"$ref": "#/$defs/a0", "$defs": links | {f"a{length}": {"type": "string"}}}


HOSTILE: dict[str, Any] = {
    "wide": {"type": "object", "properties": {f"n{i}": {} for i in range(1000)}},
    "alternatives of alternatives": {
        "anyOf": [{"$ref": f"#/$defs/{i}"} for i in range(60)],
        "$defs": {str(i): {"anyOf": [{"$ref": f"#/$defs/{(i + j) % 60}"} for j in range(8)]} for i in range(59)}
        | {"59": {"type": "array", "items": {"$ref": "#"}}},
    },
    "lists that begin alike": {"anyOf": [{"type": "array", "items": {"$ref": "#"}, "maxItems": n} for n in range(40)]},
    "strings of every length": {"anyOf": [{"type": "string", "maxLength": 2000 + n} for n in range(60)]},
    "words that begin alike": {"enum": ["x" * n for n in range(150)]},
    "a bounded number": {"type": "integer", "minimum": -123456789012345678, "maximum": 123456789012345678},
    "a long string": {"type": "string", "minLength": 60_000, "maxLength": 65_536},
    "a long chain": chain(300),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_schemas_cost_little(name: str) -> None:
    """Reading one, and a mask after each of thirty tokens. The vocabulary is small: it is the grammar that costs."""
    pieces = [bytes([i]) for i in range(256)] + [b'["', b"[[", b"xx", b'"x', b"12", b'{"n1', b'":['] + [b"x" * 128]
    masks = Masks(Vocabulary(len(pieces) + 1, pieces, (len(pieces),)))
    rng = np.random.default_rng(1)
    began = time.process_time()
    guide = masks.guide(json.dumps(HOSTILE[name], separators=(",", ":")).encode())
    for _ in range(30):
        allowed = np.flatnonzero(guide.mask())
        if allowed[-1] == len(pieces):
            break
        guide.advance(int(rng.choice(allowed[-6:])))
    assert time.process_time() - began < 3
