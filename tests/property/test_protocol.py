"""What must always hold in the protocol package, for any input."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lading_protocol.errors import BadAmount, BadKey, BadManifest, BadMessage
from lading_protocol.framing import Frames, frame
from lading_protocol.ids import Wei
from lading_protocol.keys import PrivateKey
from lading_protocol.manifest import SCHEMA, Manifest, agent_id, dump, load
from lading_protocol.messages import MAX_FRAME, ToHost, ToPayer, decode
from lading_protocol.parts import Operation, Runtime, describe_file
from lading_protocol.pricing import Price, attempt_amount, format_amount, parse_amount
from lading_protocol.receipts import compact, expand
from lading_protocol.transcript import chunk_leaf, commitment, merkle_root, roll, rolling_start, sha256

JOB = bytes(range(32))
amounts = st.integers(0, 2**96 - 1)


@given(st.lists(st.binary(max_size=200)), st.lists(st.integers(1, 50)))
def test_frames_survive_any_cutting(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(frame(payload) for payload in payloads)
    frames, seen, at = Frames(), [], 0
    for cut in [*cuts, len(stream)]:
        seen += frames.feed(stream[at : at + cut])
        at += cut
    assert seen == payloads
    assert frames.pending == 0


@given(st.integers(MAX_FRAME + 1, 2**32 - 1))
def test_a_huge_length_is_refused_before_anything_is_buffered(size: int) -> None:
    with pytest.raises(BadMessage):
        Frames().feed(size.to_bytes(4, "big"))


@given(st.binary(max_size=400))
def test_garbage_is_never_more_than_a_bad_message(data: bytes) -> None:
    for union in (ToHost, ToPayer):
        try:
            decode(union, data)
        except BadMessage:
            pass


@given(amounts, amounts, st.integers(0, 2**20), st.lists(st.integers(0, 2**16), min_size=1, max_size=20))
def test_moving_a_job_between_hosts_costs_at_most_a_rounding_each(
    price_in: int, price_out: int, prompt: int, splits: list[int]
) -> None:
    price = Price(Wei(price_in), Wei(price_out))
    whole = attempt_amount(price, prompt, 0, sum(splits))
    first, parts = 0, 0
    for tokens in splits:
        parts += attempt_amount(price, prompt, first, tokens) if tokens or first == 0 else 0
        first += tokens
        if first == 0:
            parts = 0
    if sum(splits):
        assert whole <= parts <= whole + len(splits)


@given(amounts, st.integers(0, 24))
def test_amounts_round_trip_through_the_form_people_read(amount: int, decimals: int) -> None:
    assert parse_amount(format_amount(amount, decimals), decimals) == amount


@pytest.mark.parametrize("text", ["", ".", "-1", "1e3", "1.2.3", "٣", "1.0000001", "nan", "1,5"])
def test_an_amount_that_is_not_exact_is_refused(text: str) -> None:
    with pytest.raises(BadAmount):
        parse_amount(text, 6)


@given(st.lists(st.integers(0, 2**32 - 1), max_size=120), st.integers(0, 120))
def test_transcript_does_not_depend_on_how_a_stream_was_cut(ids: list[int], cut: int) -> None:
    start = rolling_start(JOB)  # type: ignore[arg-type]
    assert roll(roll(start, ids[:cut]), ids[cut:]) == roll(start, ids)
    leaves = [chunk_leaf(JOB, at, ids[at : at + 32]) for at in range(0, len(ids), 32)]  # type: ignore[arg-type]
    assert commitment(JOB, ids, 0) == merkle_root(leaves)  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=90), st.data())
def test_the_commitment_of_a_resumed_attempt_binds_every_token_before_it(ids: list[int], data: st.DataObject) -> None:
    first = data.draw(st.integers(1, len(ids)))
    at = data.draw(st.integers(0, first - 1))
    other = [*ids[:at], ids[at] ^ 1, *ids[at + 1 :]]
    assert commitment(JOB, other, first) != commitment(JOB, ids, first)  # type: ignore[arg-type]


@given(st.lists(st.binary(min_size=1, max_size=3), min_size=2, max_size=40, unique=True), st.data())
def test_a_merkle_root_binds_every_leaf_and_its_place(values: list[bytes], data: st.DataObject) -> None:
    leaves = [sha256(value) for value in values]
    root = merkle_root(leaves)
    i = data.draw(st.integers(0, len(leaves) - 1))
    j = data.draw(st.integers(0, len(leaves) - 1).filter(lambda j: j != i))
    swapped = list(leaves)
    swapped[i], swapped[j] = leaves[j], leaves[i]
    assert merkle_root(swapped) != root
    assert merkle_root(leaves[:i] + leaves[i + 1 :]) != root


def manifest(**changes: object) -> Manifest:
    values: dict[str, object] = {
        "schema": SCHEMA,
        "name": "chat",
        "version": "1.0.0",
        "publisher": "0x" + "11" * 20,
        "summary": "A small chat model.",
        "licence": "Apache-2.0",
        "api": (Operation("chat"),),
        "context": 512,
        "runtimes": (Runtime("llm-onnx", "model.onnx", "f32", "onnx-f32-cpu"),),
        "files": (describe_file("model.onnx", "model", b"weights"),),
    }
    return Manifest(**(values | changes))  # type: ignore[arg-type]


def test_a_manifest_reads_back_and_its_id_is_that_of_its_bytes() -> None:
    data = dump(manifest())
    assert load(data) == manifest()
    assert agent_id(data) == sha256(data)


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "lading.agent/2"},
        {"name": "Chat"},
        {"api": ()},
        {"summary": "e\u0301"},
        {"summary": "line\nbreak"},
        {"files": (describe_file("../model.onnx", "model", b"x"),)},
        {"files": (describe_file("/model.onnx", "model", b"x"),)},
        {"files": (describe_file(".hidden", "model", b"x"),)},
        {"files": (describe_file("a//b", "model", b"x"),)},
        {"files": (describe_file("model.so", "library", b"x"),)},
        {"files": (describe_file("model.onnx", "model", b"x"), describe_file("MODEL.onnx", "model", b"y"))},
        {"files": (describe_file("model.onnx", "model", b"x"), describe_file("model.onnx/b", "model", b"y"))},
        {"files": (describe_file("other.onnx", "model", b"x"),)},
        {"publisher": "0x12"},
        {"context": 0},
    ],
)
def test_a_manifest_that_breaks_a_rule_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(BadManifest):
        dump(manifest(**change))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data + b" ",
        lambda data: data.replace(b'"context":512', b'"context":512.0'),
        lambda data: data.replace(b'"context":512', b'"context":NaN'),
        lambda data: data.replace(b'"context":512', b'"context":512,"context":512'),
        lambda data: data.replace(b'"context":512', b'"context":512,"extra":1'),
        lambda data: json.dumps(json.loads(data), sort_keys=True).encode(),
        lambda data: b"\xff" + data,
        lambda data: b"[" * 100_000,
        lambda data: b"",
    ],
)
def test_bytes_that_are_not_the_canonical_manifest_are_refused(spoil: object) -> None:
    with pytest.raises(BadManifest):
        load(spoil(dump(manifest())))  # type: ignore[operator]


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_a_compact_signature_is_the_same_signature(secret: bytes, digest: bytes) -> None:
    try:
        key = PrivateKey(secret)
    except BadKey:
        return
    signature = key.sign_digest(digest)
    assert len(compact(signature)) == 64
    assert expand(compact(signature)) == signature
    with pytest.raises(BadMessage):
        expand(signature)
    with pytest.raises(BadMessage):
        compact(signature[:64])
