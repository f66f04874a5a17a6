"""OCI artifacts: the same agent comes back, and nothing else does."""

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from crates import package
from lading.blobs import BlobStore, artifact_signatures, export_artifact, import_artifact
from lading.errors import BadArtifact, StoreFull
from lading_protocol.errors import LadingError
from lading_protocol.ids import AgentId
from lading_protocol.parts import CHUNK_SIZE

WEIGHTS = os.urandom(CHUNK_SIZE + 9)
CONTENTS = {
    "m/model.safetensors": ("weights", WEIGHTS),
    "tokenizer.json": ("tokenizer", b"{}"),
    "same.json": ("config", b"{}"),
    "README.md": ("readme", b"hello"),
    "empty": ("licence", b""),
}


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "store")


@pytest.fixture
def agent(store: BlobStore) -> AgentId:
    return package(store, CONTENTS)


@pytest.mark.parametrize("name", ["layout", "layout.tar"])
def test_an_agent_goes_out_and_comes_back(store: BlobStore, agent: AgentId, tmp_path: Path, name: str) -> None:
    path = tmp_path / "out" / name
    export_artifact(store, agent, path, [b"signature one", b"signature two"])
    other = BlobStore(tmp_path / "other")
    assert import_artifact(path, other) == agent
    assert other.missing(other.manifest(agent)) == []
    assert artifact_signatures(path) == (b"signature one", b"signature two")
    assert import_artifact(path, other) == agent
    export_artifact(other, agent, tmp_path / "again.tar", [b"signature one", b"signature two"])
    export_artifact(store, agent, tmp_path / "once.tar", [b"signature one", b"signature two"])
    assert (tmp_path / "again.tar").read_bytes() == (tmp_path / "once.tar").read_bytes()


def test_a_large_file_brings_its_chunk_list(store: BlobStore, tmp_path: Path) -> None:
    agent = package(store, {"m.bin": ("weights", bytes(260 * CHUNK_SIZE + 3))})
    export_artifact(store, agent, tmp_path / "layout")
    other = BlobStore(tmp_path / "other")
    assert import_artifact(tmp_path / "layout", other) == agent
    index = other.manifest(agent).files[0].index
    assert index is not None
    assert other.has(bytes.fromhex(index[2:]))


def test_the_artifact_is_what_the_specifications_say(store: BlobStore, agent: AgentId, tmp_path: Path) -> None:
    export_artifact(store, agent, tmp_path / "layout", [b"signature"])
    index = json.loads((tmp_path / "layout/index.json").read_bytes())
    whole, referrer = (blob(tmp_path / "layout", entry["digest"]) for entry in index["manifests"])
    assert whole["artifactType"] == whole["config"]["mediaType"] == "application/vnd.lading.agent.v1+json"
    assert whole["config"]["digest"] == f"sha256:{agent.hex()}"
    assert whole["layers"][0]["mediaType"] == "application/vnd.cncf.model.weight.v1.raw"
    assert whole["layers"][0]["annotations"]["org.cncf.model.filepath"] == "m/model.safetensors"
    assert whole["layers"][1]["mediaType"] == "application/vnd.cncf.model.weight.config.v1.raw"
    assert referrer["subject"]["digest"] == index["manifests"][0]["digest"]


def blob(layout: Path, digest: str) -> Any:
    return json.loads((layout / "blobs/sha256" / digest.removeprefix("sha256:")).read_bytes())


def test_other_peoples_tools_carry_it(store: BlobStore, agent: AgentId, tmp_path: Path) -> None:
    skopeo = require_skopeo()
    export_artifact(store, agent, tmp_path / "layout")
    for target in (f"oci:{tmp_path}/copied:1", f"oci-archive:{tmp_path}/copied.tar:1"):
        subprocess.run(
            [skopeo, "--insecure-policy", "copy", f"oci:{tmp_path}/layout:1", target], check=True, capture_output=True
        )
    for path in ("copied", "copied.tar"):
        assert import_artifact(tmp_path / path, BlobStore(tmp_path / f"from {path}")) == agent


def require_skopeo() -> str:
    try:
        from tools import require_program
    except ImportError:
        import shutil

        return shutil.which("skopeo") or pytest.skip("skopeo is not installed")
    return require_program("skopeo")


# Enemies --------------------------------------------------------------------------------------------------------------


def refused(path: Path, into: Path, why: str) -> None:
    store = BlobStore(into)
    with pytest.raises(LadingError, match=why):
        import_artifact(path, store)
    assert store.packages() == []
    assert not list(store.folder.glob("*.new"))


def rewrite(layout: Path, change: Callable[[Any, Any], None]) -> None:
    """Changes the image manifest, and the index so that it names the changed one."""
    index = json.loads((layout / "index.json").read_bytes())
    whole = blob(layout, index["manifests"][0]["digest"])
    change(whole, index)
    data = json.dumps(whole).encode()
    (layout / "blobs/sha256" / sha256(data).hexdigest()).write_bytes(data)
    index["manifests"][0] |= {"digest": f"sha256:{sha256(data).hexdigest()}", "size": len(data)}
    (layout / "index.json").write_bytes(json.dumps(index).encode())


def layer_path(layout: Path, number: int = 0) -> Path:
    index = json.loads((layout / "index.json").read_bytes())
    whole = blob(layout, index["manifests"][0]["digest"])
    return layout / "blobs/sha256" / str(whole["layers"][number]["digest"]).removeprefix("sha256:")


def lies_in_layers(whole: Any, index: Any) -> None:
    whole["layers"][0]["size"] = 5


def leaves_a_layer_out(whole: Any, index: Any) -> None:
    del whole["layers"][0]


def says_two_sizes(whole: Any, index: Any) -> None:
    whole["layers"].append(whole["layers"][0] | {"size": 7})


def names_a_path_as_digest(whole: Any, index: Any) -> None:
    whole["layers"][0]["digest"] = "sha256:../../../../../../etc/passwd".ljust(71, "0")


def names_a_path_as_config(whole: Any, index: Any) -> None:
    whole["config"]["digest"] = "sha256:" + "../" * 21 + "x"


def is_of_another_kind(whole: Any, index: Any) -> None:
    whole["artifactType"] = "application/vnd.cncf.model.manifest.v1+json"


def has_no_layers(whole: Any, index: Any) -> None:
    whole["layers"] = "all of them"


def has_two_agents(whole: Any, index: Any) -> None:
    index["manifests"].append(dict(index["manifests"][0]))


def has_a_negative_size(whole: Any, index: Any) -> None:
    whole["config"]["size"] = -1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lies_in_layers, "not of the size"),
        (leaves_a_layer_out, "no layer for m/model.safetensors"),
        (says_two_sizes, "different sizes"),
        (names_a_path_as_digest, "names no sha256"),
        (names_a_path_as_config, "names no sha256"),
        (is_of_another_kind, "holds 0 agents"),
        (has_no_layers, "without a list"),
        (has_two_agents, "holds 2 agents"),
        (has_a_negative_size, "names no sha256"),
    ],
)
def test_manifests_that_lie(
    store: BlobStore, agent: AgentId, tmp_path: Path, change: Callable[[Any, Any], None], why: str
) -> None:
    export_artifact(store, agent, tmp_path / "layout")
    rewrite(tmp_path / "layout", change)
    refused(tmp_path / "layout", tmp_path / "victim", why)


def test_blobs_that_lie(store: BlobStore, agent: AgentId, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    export_artifact(store, agent, layout)
    layer = layer_path(layout)
    layer.write_bytes(WEIGHTS[:-1] + b"!")
    refused(layout, tmp_path / "v1", "Chunk 1 of m/model.safetensors does not match")
    layer.write_bytes(WEIGHTS + b"more")
    refused(layout, tmp_path / "v2", "not of the size")
    with layer.open("wb") as out:
        out.truncate(1 << 40)
    refused(layout, tmp_path / "v3", "not of the size")
    layer.unlink()
    refused(layout, tmp_path / "v4", "is missing")
    (tmp_path / "secret").write_bytes(WEIGHTS)
    layer.symlink_to(tmp_path / "secret")
    refused(layout, tmp_path / "v5", "is a link")
    layer.unlink()
    os.mkfifo(layer)
    refused(layout, tmp_path / "v6", "not a plain file")
    (layout / "blobs").rename(tmp_path / "blobs")
    (layout / "blobs").symlink_to(tmp_path / "blobs")
    refused(layout, tmp_path / "v7", "is a link")


def test_json_that_lies(store: BlobStore, agent: AgentId, tmp_path: Path) -> None:
    export_artifact(store, agent, tmp_path / "layout")
    index = tmp_path / "layout/index.json"
    for data, why in (
        (b"[" * 100_000, "does not read"),
        (b"[]", "no object"),
        (b"\xff", "does not read"),
        (b" " * ((4 << 20) + 1), "over the limit"),
        (
            json.dumps({"manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json"}] * 99}).encode(),
            "many",
        ),
    ):
        index.write_bytes(data)
        refused(tmp_path / "layout", tmp_path / "victim", why)
    (tmp_path / "layout/oci-layout").write_bytes(b'{"imageLayoutVersion":"9"}')
    refused(tmp_path / "layout", tmp_path / "victim", "no OCI layout")


def test_a_quota_stops_an_import_before_it_writes(store: BlobStore, agent: AgentId, tmp_path: Path) -> None:
    export_artifact(store, agent, tmp_path / "layout.tar")
    small = BlobStore(tmp_path / "small", quota=CHUNK_SIZE)
    with pytest.raises(StoreFull):
        import_artifact(tmp_path / "layout.tar", small)
    assert small.used() == 0


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", target: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.type, made.size, made.linkname = kind, len(data), target
    return made, data


ANY = "blobs/sha256/" + "a" * 64


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([entry("../../etc/cron.d/x", data=b"x")], "not a name of an OCI layout"),
        ([entry("/etc/passwd", data=b"x")], "not a name of an OCI layout"),
        ([entry("blobs/sha256/" + "A" * 64)], "not a name of an OCI layout"),
        ([entry("more/")], "not a name of an OCI layout"),
        ([entry(ANY, tarfile.SYMTYPE, target="/etc/passwd")], "is a link"),
        ([entry(ANY, tarfile.LNKTYPE, target="index.json")], "is a link"),
        ([entry(ANY, tarfile.CHRTYPE)], "is a link"),
        ([entry(ANY, tarfile.FIFOTYPE)], "is a link"),
        ([entry(ANY, tarfile.GNUTYPE_SPARSE)], "is a link"),
        ([entry("blobs", tarfile.SYMTYPE, target="/")], "is a link"),
        ([entry("index.json"), entry("index.json")], "stands twice"),
        ([entry("index.json"), entry("./index.json")], "stands twice"),
        ([entry("blobs/sha256/" + f"{number:064x}") for number in range(4097)], "over 4096 entries"),
    ],
)
def test_archives_that_lie(tmp_path: Path, entries: list[tuple[tarfile.TarInfo, bytes]], why: str) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for made, data in entries:
            tar.addfile(made, io.BytesIO(data))
    refused(tmp_path / "bad.tar", tmp_path / "victim", why)


def test_archives_that_are_broken_or_packed(store: BlobStore, agent: AgentId, tmp_path: Path) -> None:
    export_artifact(store, agent, tmp_path / "good.tar")
    good = (tmp_path / "good.tar").read_bytes()
    bad = tmp_path / "bad.tar"
    for data, why in (
        (b"", "oci-layout is missing"),
        (b"\x1f\x8b" + bytes(600), "no uncompressed tar"),
        (good[: len(good) // 2], "cut off"),
        (good[:124] + b"77777777777\0" + good[136:], "no uncompressed tar"),
        (with_number(good, b"77777777777\0"), "cut off"),
        (with_number(good, b"\x80" + b"\xff" * 11), "cut off"),
        (with_number(good, b"not a size!\0"), "number that is none"),
    ):
        bad.write_bytes(data)
        refused(bad, tmp_path / "victim", why)


def with_number(good: bytes, size: bytes) -> bytes:
    """The first entry's size replaced, under a checksum that fits."""
    header = bytearray(good[:512])
    header[124:136] = size
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + good[512:]


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"path": "../escape"}, "changes names"),
        ({"GNU.sparse.size": "99999999"}, "changes names"),
        ({"size": "99999999999"}, "cut off"),
        ({"comment": "x" * 100_000}, "absurd size"),
    ],
)
def test_extension_headers_that_lie(tmp_path: Path, headers: dict[str, str], why: str) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        made = tarfile.TarInfo("index.json")
        made.pax_headers = headers
        tar.addfile(made, io.BytesIO(b""))
    refused(tmp_path / "bad.tar", tmp_path / "victim", why)


def test_an_export_replaces_nothing(store: BlobStore, agent: AgentId, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(BadArtifact, match="exists already"):
        export_artifact(store, agent, tmp_path / "there")
