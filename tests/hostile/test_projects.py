"""Projects by an enemy: whoever packs a folder from a stranger packs only what lies in it, and waits for nothing."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hostile.kit import ESCAPES, named
from lading.blobs import BlobStore
from lading.errors import BadProject
from lading.project import load_project
from lading.publisher import pack
from lading_protocol.errors import LadingError
from lading_protocol.ids import Address

SECRET = b"the secret of this machine"
TOML = """
[agent]
name = "chat"
version = "1.0.0"
summary = "A small chat model."
licence = "MIT"
operations = ["chat"]
context = 512

[[runtime]]
engine = "onnx"
entry = "model.onnx"
precision = "f32"
numeric = "onnx-f32-cpu"

[[file]]
path = "model.onnx"
role = "model"
{more}
[[party]]
role = "maker"
bps = 1000
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "agent.toml").write_text(TOML.format(more=""))
    (folder / "model.onnx").write_bytes(b"weights")
    (tmp_path / "secret").write_bytes(SECRET)
    return folder


def packed(folder: Path) -> BlobStore:
    store = BlobStore(folder.parent / "store")
    pack(load_project(folder), folder, Address(bytes(20)), store)
    return store


def refused(folder: Path, *words: str) -> None:
    """In a line, at once, and with nothing of this machine in the store."""
    began = time.monotonic()
    with pytest.raises(LadingError) as caught:
        packed(folder)
    named(caught.value, *words)
    assert time.monotonic() - began < 60
    for blob in (folder.parent / "store").rglob("*"):
        assert not blob.is_file() or SECRET not in blob.read_bytes()


def test_the_good_one_is_packed(project: Path) -> None:
    assert any(blob.read_bytes() == b"weights" for blob in packed(project).folder.rglob("*") if blob.is_file())


@pytest.mark.parametrize("source", ["../secret", "/etc/passwd", "/proc/self/environ", "a/../../secret", "", "\\u0000"])
def test_a_source_outside_is_refused(project: Path, source: str) -> None:
    (project / "agent.toml").write_text(TOML.format(more=f'source = "{source}"\n'))
    if source:
        refused(project)
    else:
        packed(project)


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as line:
        before = os.getcwd()
        os.chdir(path.parent)  # such a path may be short only
        line.bind(path.name)
        os.chdir(before)


def _circle(path: Path) -> None:
    path.symlink_to(path.with_name("other"))
    path.with_name("other").symlink_to(path)


def _through_folder(path: Path) -> None:
    path.symlink_to(Path("up") / "secret")
    path.with_name("up").symlink_to("..")


FILES: dict[str, Callable[[Path], None]] = {
    "a link to the shadow file": lambda path: path.symlink_to("/etc/shadow"),
    "a link beside the project": lambda path: path.symlink_to("../secret"),
    "a link through a linked folder": _through_folder,
    "a link to a program's memory": lambda path: path.symlink_to("/proc/self/mem"),
    "a link to the terminal": lambda path: path.symlink_to("/dev/tty"),
    "a link to zeros without end": lambda path: path.symlink_to("/dev/zero"),
    "a link to its own input": lambda path: path.symlink_to("/dev/stdin"),
    "a circle of links": _circle,
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a pipe": _fifo,
    "a socket": _socket,
    "a folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", ["model.onnx", "agent.toml"])
def test_what_is_no_plain_file_inside_is_refused(project: Path, name: str, file: str) -> None:
    path = project / name
    path.unlink()
    FILES[file](path)
    refused(project, name)


def test_a_link_that_stays_inside_is_followed(project: Path) -> None:
    """As model hubs lay their folders out."""
    (project / "blobs").mkdir()
    (project / "model.onnx").rename(project / "blobs" / "abc")
    (project / "model.onnx").symlink_to("blobs/abc")
    packed(project)


def test_a_project_that_is_a_link_is_the_folder_it_leads_to(project: Path) -> None:
    link = project.with_name("link")
    link.symlink_to(project)
    packed(link)
    (project / "model.onnx").unlink()
    (project / "model.onnx").symlink_to("../secret")
    refused(link)


TEXTS = {
    "nothing": "",
    "no TOML": "[agent",
    "no text": "\x00\x01",
    "names that draw": TOML.format(more="").replace('name = "chat"', 'name = "\\u001b[2J"'),
    "an unknown key that draws": TOML.format(more="") + '"\\u001b[2J\\nname" = 1\n',
    "an unknown key without end": TOML.format(more="") + f"{'k' * 10_000} = 1\n",
    "a role that draws": TOML.format(more="").replace('role = "maker"', 'role = "\\u001b[2J"'),
    "a payee that draws": TOML.format(more="") + 'payee = "\\u001b[2J\\n"\n',
    "brackets without end": "a = " + "[" * 100_000,
    "tables without end": "[" + ".".join(["a"] * 20_000) + "]",
    "a share below nothing": TOML.format(more="").replace("bps = 1000", "bps = -1"),
    "a share over all": TOML.format(more="").replace("bps = 1000", "bps = 10000"),
    "a date": TOML.format(more="").replace("context = 512", "context = 2020-01-01"),
    "a fraction": TOML.format(more="").replace("context = 512", "context = 0.5"),
    "not a number": TOML.format(more="").replace("context = 512", "context = nan"),
    "a huge number": TOML.format(more="").replace("context = 512", f"context = {'9' * 4000}"),
    "a number without end": TOML.format(more="").replace("context = 512", f"context = {'9' * 40_000}"),
    "a path up": TOML.format(more="").replace('path = "model.onnx"', 'path = "../model.onnx"\nsource = "model.onnx"'),
    "a device's name": TOML.format(more="").replace('path = "model.onnx"', 'path = "nul.onnx"\nsource = "model.onnx"'),
    "native code": TOML.format(more="").replace('role = "model"', 'role = "custom_ops_library"'),
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_that_is_no_project_is_named(project: Path, text: str) -> None:
    (project / "agent.toml").write_text(TEXTS[text])
    refused(project)


def test_a_text_without_end_is_not_read(project: Path) -> None:
    with (project / "agent.toml").open("wb") as file:
        file.truncate(1 << 40)
    refused(project, "agent.toml")


def test_a_folder_whose_name_draws_is_named_without_drawing(tmp_path: Path) -> None:
    folder = tmp_path / ESCAPES.replace("\x00", "").replace("/", "")[:60]
    folder.mkdir()
    with pytest.raises(BadProject) as caught:
        load_project(folder)
    from lading.cli import output

    assert "\x1b" not in output.line(str(caught.value))
