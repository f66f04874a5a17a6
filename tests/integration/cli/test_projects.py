"""From a folder to an agent that answers: what `init` knows, `run` and `test` here, and projects that are none, each
with its one line."""

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file

from integration.cli.quay import Outcome, call
from integration.engines.tiny_llama import TINY, write_chat, write_embedder
from lading.project import load_project, operations
from lading_demo.scenes import ROOT

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": TINY.layers,
    "num_attention_heads": TINY.heads,
    "num_key_value_heads": TINY.kv_heads,
    "head_dim": TINY.head,
    "hidden_size": TINY.hidden,
    "vocab_size": TINY.vocab,
    "max_position_embeddings": TINY.context,
    "eos_token_id": 1,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "torch_dtype": "bfloat16",
}
MEMORY = """
[agent]
name = "toy"
version = "1"
summary = "A toy."
licence = "Apache-2.0"
operations = ["chat", "embed"]
context = 4096
[[runtime]]
engine = "memory"
entry = "model.bin"
precision = "f32"
numeric = "onnx-f32-cpu"
[[file]]
path = "model.bin"
role = "model"
[[party]]
role = "maker"
bps = 1000
"""


@pytest.fixture
def ours(tmp_path: Path) -> Callable[..., Outcome]:
    def go(verb: str, *words: object) -> Outcome:
        home = () if verb == "init" else ("--home", tmp_path / "home")
        return call("agent", verb, *words, *home, "--json")

    return go


def lay(folder: Path, spec: Any) -> None:
    """The files of an engine's specification, under the names that models are saved with."""
    names = {"model": "model.onnx", "tokenizer": "tokenizer.json"}
    for file in spec.files:
        suffix = Path(file.path).suffix
        shutil.copy(file.path, folder / names.get(file.role, f"chat_template{suffix}"))


def toy(folder: Path, more: str = "", **replaced: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "model.bin").write_bytes(b"toy")
    text = MEMORY + more
    for old, new in replaced.items():
        text = text.replace(old, new)
    (folder / "agent.toml").write_text(text)
    return folder


def test_three_verbs_from_a_model_folder(ours: Callable[..., Outcome], tmp_path: Path) -> None:
    """Onnx stands before torch, so a host without torch runs it; the answer comes from the sandbox."""
    folder, made = tmp_path / "My Model", tmp_path / "made"
    folder.mkdir()
    made.mkdir()
    lay(folder, write_chat(made, jinja=True))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file({}, folder / "model.safetensors")
    told = ours("init", folder).tree
    assert told["engines"] == ["llm-onnx", "torch"]
    project = load_project(folder)
    assert (project.agent.name, project.agent.context) == ("my-model", 256)
    assert [one.precision for one in project.runtime] == ["f32", "bf16"]
    again = ours("init", folder)
    assert (again.code, "exists already" in again.error["message"]) == (2, True)
    answer = ours("run", folder, "Hello", "--max-tokens", "5").tree
    assert answer["usage"]["completion_tokens"] == 5
    assert {"network", "files"} <= set(answer["confinement"])
    shown = ours("inspect", folder).tree
    assert sorted(shown["models"]) == ["main", "torch"]
    assert shown["manifest"]["models"][0]["architecture"] == "LlamaForCausalLM"


def test_a_template_inside_the_tokenizer_s_configuration_is_written_out(
    ours: Callable[..., Outcome], tmp_path: Path
) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text("{}")
    save_file({}, folder / "model-00001-of-00002.safetensors")
    save_file({}, folder / "model-00002-of-00002.safetensors")
    none = ours("init", folder)
    assert "has no chat template" in none.error["message"]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert ours("init", folder).tree["engines"] == ["torch"]
    assert (folder / "chat_template.jinja").read_text() == "{{ messages }}"
    assert [one.role for one in load_project(folder).file].count("weights") == 2


def test_an_embedding_model(ours: Callable[..., Outcome], tmp_path: Path) -> None:
    folder, made = tmp_path / "embed", tmp_path / "made"
    folder.mkdir()
    made.mkdir()
    lay(folder, write_embedder(made))
    (folder / "config.json").write_text('{"hidden_size": 24}')
    assert ours("init", folder).tree["engines"] == ["onnx"]
    assert load_project(folder).agent.width == 24
    answer = ours("run", folder, "A fox.").tree
    assert (answer["width"], len(answer["vectors"])) == (24, 1)
    (finding,) = ours("test", folder, "--record").tree
    assert (finding["expected"], finding["again"], finding["resumed"]) == ("yes", "yes", "-")
    said = call("agent", "run", folder, "A fox.", "--home", tmp_path / "home").out
    assert "24 numbers of length" in said


@pytest.mark.parametrize(("head", "engine"), [(b"\0asm\1\0\0\0", "wasm-core"), (b"\0asm\x0d\0\1\0", "wasm-component")])
def test_webassembly_by_its_header(ours: Callable[..., Outcome], tmp_path: Path, head: bytes, engine: str) -> None:
    (tmp_path / "agent.wasm").write_bytes(head)
    assert ours("init", tmp_path).tree["engines"] == [engine]
    assert operations(load_project(tmp_path), tmp_path)[0].name == "run"


@pytest.mark.parametrize("layout", ["docker", "oci"])
def test_an_image_archive_and_its_platform(ours: Callable[..., Outcome], tmp_path: Path, layout: str) -> None:
    config = {"os": "linux", "architecture": "arm64"}
    files: dict[str, Any] = {"config.json": config, "manifest.json": [{"Config": "config.json"}]}
    if layout == "oci":
        manifest = {"config": {"digest": "sha256:cc"}}
        files = {"index.json": {"manifests": [{"digest": "sha256:aa"}]}, "blobs/sha256/aa": manifest}
        files["blobs/sha256/cc"] = config
    with tarfile.open(tmp_path / "image.tar", "w") as archive:
        for name, tree in files.items():
            data = json.dumps(tree).encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    assert ours("init", tmp_path).tree["engines"] == ["oci"]
    assert load_project(tmp_path).runtime[0].platform == "linux/arm64"


def test_an_empty_folder_gets_an_example(ours: Callable[..., Outcome], tmp_path: Path) -> None:
    assert ours("init", tmp_path / "new").tree["found"] == "nothing that is known"
    assert load_project(tmp_path / "new").party[0].bps == 1000


def test_operations_vectors_and_capabilities_reach_the_manifest(ours: Callable[..., Outcome], tmp_path: Path) -> None:
    more = """
[[operation]]
name = "shout"
input = "in.json"
[capabilities]
clock = true
[revenue]
floor_out = "0.5"
royalty_bps = 200
[[vector]]
operation = "shout"
input = { text = "hello" }
digest = "0x1111111111111111111111111111111111111111111111111111111111111111"
"""
    folder = toy(tmp_path / "toy", more)
    (folder / "in.json").write_text('{"type": "object", "required": ["text"]}')
    manifest = ours("inspect", folder).tree["manifest"]
    assert [one["name"] for one in manifest["api"]] == ["chat", "embed", "shout"]
    assert manifest["api"][2]["input"]["required"] == ["text"]
    assert (manifest["revenue"]["floor_out"], manifest["revenue"]["royalty"]) == (str(5 * 10**17), 200)
    told = call("agent", "inspect", folder, "--home", tmp_path / "home").out
    for words in ("the time", "follows from the publisher's key", "shout", "90 % to the host"):
        assert words in told
    refused = ours("run", folder, "--operation", "shout", "--input", "[]")
    assert "is not what 'shout' takes" in refused.error["message"]
    wrong = ours("test", folder)
    assert wrong.code == 1
    assert "another digest" in json.loads(wrong.out)[0]["trouble"]


BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a link out": (lambda f: relink(f, lambda p: p.symlink_to("/etc/hostname")), "outside of the project's folder"),
    "a path out": (lambda f: toy(f, **{'role = "model"': 'role = "model"\nsource = "../x.bin"'}), "cannot be read"),
    "a pipe": (lambda f: relink(f, os.mkfifo), "is not a plain file"),
    "a device": (lambda f: toy(f, **{'role = "model"': 'role = "model"\nsource = "/dev/zero"'}), "outside of"),
    "a circle": (lambda f: relink(f, lambda p: p.symlink_to(p.name)), "cannot be read"),
    "a folder": (lambda f: relink(f, Path.mkdir), "is not a plain file"),
    "no file": (lambda f: relink(f, lambda p: None), "cannot be read"),
    "no operation": (lambda f: toy(f, **{'operations = ["chat", "embed"]': ""}), "names no operations"),
    "an unknown key": (lambda f: toy(f, "surprise = 1"), "is not a valid project"),
    "an unknown role": (lambda f: toy(f, **{'role = "model"': 'role = "library"'}), "unknown role 'library'"),
    "no schema": (lambda f: toy(f, '[[operation]]\nname = "x"\ninput = { type = "nothing" }'), "is no JSON Schema"),
    "a schema elsewhere": (
        lambda f: toy(f, '[[operation]]\nname = "x"\ninput = { "$ref" = "http://example.org/" }'),
        "refers to another document",
    ),
    "an unknown vector": (
        lambda f: toy(f, '[[vector]]\noperation = "sing"\ninput = ""\noutput = ""'),
        "which the agent does not do",
    ),
    "noise in vectors": (lambda f: (toy(f) / "vectors.jsonl").write_text("{\n"), "line 1, is no test vector"),
    "a bad floor": (lambda f: toy(f, '[revenue]\nfloor_in = "much"'), "floor_in is wrong"),
    "a bad payee": (lambda f: toy(f, 'payee = "me"'), "payee of the maker is wrong"),
    "binary": (lambda f: (toy(f) / "agent.toml").write_bytes(b"\xff\xfe"), "is not UTF-8 text"),
}


def relink(folder: Path, make: Callable[[Path], Any]) -> None:
    (toy(folder) / "model.bin").unlink()
    make(folder / "model.bin")


@pytest.mark.parametrize("case", BAD)
def test_a_project_that_is_none_is_told_in_one_line(ours: Callable[..., Outcome], tmp_path: Path, case: str) -> None:
    make, words = BAD[case]
    make(tmp_path / "toy")
    ended = ours("inspect", tmp_path / "toy")
    assert (ended.code, ended.error["code"] in ("bad_project", "bad_manifest")) == (2, True)
    assert words in ended.error["message"]
    assert "\n" not in ended.error["message"]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("agent.wasm", b"MZ", "neither a WebAssembly module nor a component"),
        ("image.tar", b"no tar", "not an OCI image archive"),
        ("model.onnx", b"\xff" * 99, "not an ONNX model"),
    ],
)
def test_files_that_only_look_like_an_agent(
    ours: Callable[..., Outcome], tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(data)
    ended = ours("init", tmp_path)
    assert (ended.code, words in ended.error["message"]) == (2, True)
    assert not (tmp_path / "agent.toml").exists()


def test_the_chat_agent_of_this_repository_answers(ours: Callable[..., Outcome]) -> None:
    answer = ours("run", ROOT / "agents/chat", "Hello!", "--max-tokens", "4").tree
    assert (answer["finish"], answer["usage"]["completion_tokens"]) == ("length", 4)
    other = ours("run", ROOT / "agents/chat", "Hello!", "--operation", "sing")
    assert "does not do 'sing'" in other.error["message"]
