"""Manifests by an enemy: each is refused in one line that names what is wrong, quickly, and with nothing written."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostile.kit import ESCAPES, canonical, good, named
from lading_protocol.errors import BadManifest
from lading_protocol.manifest import MAX_MANIFEST, Manifest, dump, load
from lading_protocol.parts import describe_file

Spoil = Callable[[dict[str, Any]], Any]
BIG = 10**30


def refused(data: bytes, *words: str) -> None:
    began = time.monotonic()
    with pytest.raises(BadManifest) as caught:
        load(data)
    named(caught.value, *words)
    assert time.monotonic() - began < 60


def test_the_good_one_is_good() -> None:
    assert dump(load(canonical(good()))) == canonical(good())


PATHS = [
    *("", ".", "..", "../up", "a/../../up", "a/..", "/etc/passwd", "//host/share", "a//b", "a/", "/", "./a", "a/."),
    *(".hidden", "a/.git/config", "~/.ssh/id", "a\\b", "C:\\windows", "c:a", "a:stream", "model.onnx ", " model.onnx"),
    *("CON", "nul", "aux.json", "Com1.onnx", "a/lpt9.txt", "prn", "model.", "a./b", "a...", "*", "a?b", "a|b", "<a>"),
    *("a\nb", "a\n", "a\x00b", "a\tb", "a\x1b[31mb", "%2e%2e/up", "a%00", "-rf", "--option", "$HOME/x", "`id`", ";id"),
    *(
        "ﬁle",
        "naïve",
        "ＭＯＤＥＬ",
        "a\u202eb",
        "a\u200bb",
        "\u212a",
        "ı",
        "\ud800",
        "a" * 600,
        "/".join("a" * 300),
        "a" * 200,
    ),
]


@pytest.mark.parametrize("path", PATHS, ids=[ascii(path)[:40] for path in PATHS])
def test_no_path_leaves_the_package_or_means_two_things(path: str) -> None:
    for place in ("files", "entry"):
        tree = good()
        if place == "files":
            tree["files"][1]["path"] = path
        else:
            tree["runtimes"][0]["entry"] = path
        refused(canonical(tree))


@given(st.text(max_size=80))
def test_whatever_path_is_taken_stays_below_the_folder(path: str) -> None:
    tree = good()
    tree["files"][1]["path"] = path
    try:
        manifest = load(canonical(tree))
    except BadManifest as error:
        named(error)
        return
    taken = manifest.files[1].path
    assert taken.isascii()
    assert all(part and not part.startswith((".", "-")) and not part.endswith(".") for part in taken.split("/"))


CLASHES = {
    "twice": ["model.onnx", "model.onnx"],
    "by case": ["model.onnx", "MODEL.ONNX"],
    "by case of a folder": ["a/x", "A/X"],
    "below a file": ["a", "a/b"],
    "below a file, listed first": ["a/b/c", "a/b"],
    "below a file by case": ["A", "a/b"],
}


@pytest.mark.parametrize("clash", CLASHES)
def test_no_two_files_are_one_on_any_system(clash: str) -> None:
    tree = good()
    for path in CLASHES[clash]:
        tree["files"].append(json.loads(canonical(describe_built(path))))
    refused(canonical(tree))


def describe_built(path: str) -> dict[str, Any]:
    import msgspec

    built: dict[str, Any] = msgspec.to_builtins(describe_file(path, "weights", b"x"))
    return built


def at(*keys: Any, value: Any) -> Spoil:
    def spoil(tree: dict[str, Any]) -> Any:
        place = tree
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        return tree

    return spoil


LIES: dict[str, Spoil] = {
    # Sizes and chunks.
    "a negative size": at("files", 0, "size", value=-1),
    "a size over all disks": at("files", 0, "size", value=2**63),
    "a size that overflows": at("files", 0, "size", value=BIG),
    "a size for more chunks": at("files", 0, "size", value=(1 << 20) + 1),
    "a size for no chunk": at("files", 0, "size", value=0),
    "a size in words": at("files", 0, "size", value="7"),
    "true for a size": at("files", 0, "size", value=True),
    "no chunks": at("files", 0, "chunks", value=[]),
    "a chunk too many": at("files", 0, "chunks", value=["0x" + "00" * 32] * 2),
    "ten thousand chunks": at("files", 0, "chunks", value=["0x" + "00" * 32] * 10_000),
    "a chunk with a line break": at("files", 0, "chunks", value=["0x" + "00" * 32 + "\n"]),
    "a large file without an index": at("files", 0, "size", value=2**50),
    "an index for a small file": at("files", 0, "index", value="0x" + "00" * 32),
    # Digests and names.
    "a short digest": at("files", 0, "digest", value="0x00"),
    "a digest with a line break": at("files", 0, "digest", value="0x" + "00" * 32 + "\n"),
    "a digest in capitals": at("files", 0, "digest", value="0x" + "AA" * 32),
    "a digest that is a path": at("files", 0, "digest", value="../../../../etc/passwd"),
    "a name with a line break": at("name", value="chat\n"),
    "a name with an escape": at("name", value=ESCAPES),
    "a summary with an escape": at("summary", value=ESCAPES),
    "a version with an escape": at("version", value=ESCAPES),
    "a version with a line break": at("version", value="1.0\n2.0"),
    "a licence that turns the text": at("licence", value="MIT\u202e"),
    "an engine with an escape": at("runtimes", 0, "engine", value="onnx\x1b[31m"),
    "a number class with a line break": at("runtimes", 0, "numeric", value="f32\n"),
    "a publisher with a line break": at("publisher", value="0x" + "11" * 20 + "\n"),
    "an operation with a line break": at("api", 0, "name", value="chat\n"),
    "a summary not in one form": at("summary", value="e\u0301"),
    "a lone surrogate": at("summary", value="\ud800"),
    "a summary without end": at("summary", value="a" * 100_000),
    # Roles.
    "a shared library": at("files", 0, "role", value="library"),
    "a program": at("files", 0, "role", value="python"),
    "a configuration that names native code": at("files", 0, "role", value="genai_config"),
    "custom operators": at("files", 0, "role", value="custom_ops_library"),
    "a role with an escape": at("files", 0, "role", value=ESCAPES),
    # Claims about the model.
    "too many layers": at("runtimes", 0, "llm", "layers", value=513),
    "no layers": at("runtimes", 0, "llm", "layers", value=0),
    "negative heads": at("runtimes", 0, "llm", "heads", value=-4),
    "a huge vocabulary": at("runtimes", 0, "llm", "vocab", value=BIG),
    "no end": at("runtimes", 0, "llm", "eos", value=[]),
    "a negative end": at("runtimes", 0, "llm", "eos", value=[-1]),
    "a context over all memory": at("context", value=BIG),
    "a negative context": at("context", value=-1),
    "an entry that is no file": at("runtimes", 0, "entry", value="other.onnx"),
    # Shape.
    "an unknown field": at("extra", value=1),
    "an unknown field that draws": at(ESCAPES, value=1),
    "an unknown field in a file": at("files", 0, ESCAPES, value=1),
    "an unknown field without end": at("b" * 5000, value=1),
    "no files": at("files", value=[]),
    "files in a table": at("files", value={"0": {}}),
    "another schema": at("schema", value="lading.agent/2"),
    "a schema that draws": at("schema", value=ESCAPES),
    "nothing": lambda tree: None,
    "a list": lambda tree: [tree],
    "a word": lambda tree: "manifest",
    "a number": lambda tree: 7,
    # Money.
    "a negative share": at("revenue", value={"split": [{"role": "maker", "payee": "0x" + "1" * 40, "bps": -1}]}),
    "all to others": at("revenue", value={"split": [{"role": "maker", "payee": "0x" + "1" * 40, "bps": 9999}] * 2}),
    "a floor that is no number": at("revenue", value={"floor_in": "1e18"}),
    "a floor with a line break": at("revenue", value={"floor_in": "1\n"}),
    "egress with a line break": at("capabilities", value={"egress": ["example.org\n"]}),
    "egress to everywhere with an escape": at("capabilities", value={"egress": ["\x1b[31m"]}),
}


@pytest.mark.parametrize("lie", LIES)
def test_no_lie_is_taken(lie: str) -> None:
    refused(canonical(LIES[lie](good())))


DATA: dict[str, Callable[[bytes], bytes]] = {
    "nothing at all": lambda data: b"",
    "no UTF-8": lambda data: b"\xff" + data,
    "a byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "spaces": lambda data: data + b" ",
    "another value behind": lambda data: data + b"{}",
    "brackets without end": lambda data: b"[" * (MAX_MANIFEST - 1),
    "braces without end": lambda data: b'{"a":' * (MAX_MANIFEST // 6),
    "closed before opened": lambda data: b"]" * 1000 + b"[" * 1020,
    "deep inside a value": lambda data: data.replace(b'"chat"', b"[" * 40 + b"]" * 40, 1),
    "over the size": lambda data: data.replace(b"A small", b"A" * MAX_MANIFEST),
    "a key twice": lambda data: data.replace(b'"context":512', b'"context":512,"context":512'),
    "a key twice, escaped once": lambda data: data.replace(b'"context":512', b'"context":512,"conte\\u0078t":512'),
    "a key twice in a file": lambda data: data.replace(b'"role":"model"', b'"role":"model","role":"model"'),
    "a fraction": lambda data: data.replace(b"512", b"512.0"),
    "an exponent": lambda data: data.replace(b"512", b"512e0"),
    "a fraction without end": lambda data: data.replace(b"512", b"512." + b"0" * 500_000),
    "not a number": lambda data: data.replace(b"512", b"NaN"),
    "infinity": lambda data: data.replace(b"512", b"-Infinity"),
    "a number without end": lambda data: data.replace(b"512", b"5" * 900_000),
    "minus zero": lambda data: data.replace(b"512", b"-0"),
    "a leading zero": lambda data: data.replace(b"512", b"0512"),
    "an escape for a letter": lambda data: data.replace(b'"chat"', b'"ch\\u0061t"'),
    "half a surrogate pair": lambda data: data.replace(b"A small", b"\\ud800"),
    "null for what has a default": lambda data: data.replace(b'"parent":null,', b""),
    "a million files": lambda data: data.replace(b'"files":[', b'"files":[' + b"{}," * 340_000),
    "a raw line break in a string": lambda data: data.replace(b"A small", b"A\nsmall"),
    "a null byte": lambda data: data.replace(b"A small", b"A\x00small"),
    "an open string": lambda data: data[:-20],
    "a program": lambda data: b"__import__('os').system('id')",
    "a pickle": lambda data: b"\x80\x04cposix\nsystem\n",
}


@pytest.mark.parametrize("trick", DATA)
def test_no_trick_of_the_text_is_taken(trick: str) -> None:
    data = DATA[trick](canonical(good()))
    assert data != canonical(good())
    refused(data)


@given(st.binary(max_size=300))
def test_garbage_is_a_bad_manifest_and_nothing_else(data: bytes) -> None:
    with pytest.raises(BadManifest) as caught:
        load(data)
    named(caught.value)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-BIG, BIG) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@given(st.data())
def test_any_value_in_any_place_is_refused_or_understood(data: st.DataObject) -> None:
    """What is understood reads back to the same bytes: there is one reading of a manifest."""
    tree = good()
    place: Any = tree
    while isinstance(place, dict | list) and place:
        keys = sorted(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if data.draw(st.booleans()) or not isinstance(place[key], dict | list):
            place[key] = data.draw(_json)
            break
        place = place[key]
    raw = canonical(tree)
    try:
        manifest = load(raw)
    except BadManifest as error:
        named(error)
    else:
        assert isinstance(manifest, Manifest)
        assert dump(manifest) == raw
