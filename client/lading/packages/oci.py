"""The names that an agent's package has as an OCI artifact, and how descriptors are written."""

import json
from typing import Any

AGENT = "application/vnd.lading.agent.v1+json"
SIGNATURE = "application/vnd.lading.signature.v1"
INDEX = "application/vnd.lading.chunks.v1"
IMAGE_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
IMAGE_INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = "application/vnd.oci.empty.v1+json"
_WEIGHT = "application/vnd.cncf.model.weight.v1.raw"
_WEIGHT_CONFIG = "application/vnd.cncf.model.weight.config.v1.raw"
_DOC = "application/vnd.cncf.model.doc.v1.raw"
MEDIA_TYPES = {
    "model": _WEIGHT,
    "weights": _WEIGHT,
    "adapter": _WEIGHT,
    "tokenizer": _WEIGHT_CONFIG,
    "chat_template": _WEIGHT_CONFIG,
    "vocabulary": _WEIGHT_CONFIG,
    "config": _WEIGHT_CONFIG,
    "readme": _DOC,
    "licence": _DOC,
    "module": "application/wasm",
    "image": "application/vnd.lading.image.v1.tar",
    "delta": "application/vnd.lading.delta.v1",
}
PATH = "org.cncf.model.filepath"
TITLE = "org.opencontainers.image.title"
REF = "org.opencontainers.image.ref.name"
MOST_JSON = 4 << 20
MOST_SIGNATURES = 16
MOST_SIGNATURE = 1024
Json = dict[str, Any]


def descriptor(media_type: str, blob: bytes, size: int, annotations: Json | None = None) -> Json:
    found: Json = {"mediaType": media_type, "digest": f"sha256:{blob.hex()}", "size": size}
    return found | {"annotations": annotations} if annotations else found


def dump_json(tree: Json) -> bytes:
    return json.dumps(tree, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
