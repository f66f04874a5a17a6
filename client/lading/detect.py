"""What lies in a folder, as an agent.toml would say it: a model in Hugging Face's layout, ONNX, WebAssembly, an image.

Reads configurations and headers; runs nothing and loads no model. What it cannot know, the file says in a comment.
"""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from lading.errors import BadProject
from lading.project import read_text, source_of
from lading_protocol.parts import LlmShape

_HEADER = 8
_CORE, _COMPONENT = b"\0asm\x01\0\0\0", b"\0asm\x0d\0\x01\0"
_PRECISIONS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_TEXT_INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids", "position_ids"})
_MOST_MEMBERS = 4096
_MOST_INDEX = 4 << 20


class Found(msgspec.Struct, frozen=True):
    """What agent.toml says of the folder. `runtimes` and `files` are TOML values by key; `notes` are for a person."""

    what: str
    operations: tuple[str, ...]
    context: int
    runtimes: tuple[dict[str, Any], ...]
    files: tuple[tuple[str, str], ...]
    width: int | None = None
    tables: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def detect(folder: Path) -> Found | None:
    """None when nothing is known here. Raises BadProject for what is known and cannot be an agent as it is."""
    names = sorted(_names(folder))
    weights = [name for name in names if name.endswith(".safetensors") and "/" not in name]
    onnx = [name for name in names if name.endswith(".onnx")]
    onnx.sort(key=lambda name: (name not in ("model.onnx", "onnx/model.onnx"), name))
    if "config.json" in names and weights:
        return _hf(folder, names, weights, onnx)
    if onnx:
        return _onnx(folder, names, onnx[0])
    for name in names:
        if name.endswith(".wasm"):
            return _wasm(folder, name)
    images = [name for name in names if name.endswith(".tar")]
    return _image(folder, images[0]) if images else None


def _names(folder: Path) -> list[str]:
    found = [path.relative_to(folder).as_posix() for path in folder.glob("*") if path.is_file()]
    return found + [path.relative_to(folder).as_posix() for path in folder.glob("[!.]*/*") if path.is_file()]


# Hugging Face's layout ----------------------------------------------------------------------------------------------


def _hf(folder: Path, names: list[str], weights: list[str], onnx: list[str]) -> Found:
    config = _json(folder, "config.json")
    if "tokenizer.json" not in names:
        why = f"{folder} has weights and no tokenizer.json."
        raise BadProject(why, hint="Save the tokenizer beside them, in the fast format.")
    shape, context = _shape(config, _optional(folder, names, "generation_config.json")), _context(config, 1024)
    template = _template(folder, names)
    precision = _PRECISIONS.get(str(config.get("torch_dtype") or config.get("dtype") or "float32"), "f32")
    runtimes = []
    files = [("config.json", "config"), *((name, "weights") for name in weights), ("tokenizer.json", "tokenizer")]
    notes = []
    if onnx and _is_decoder(folder, onnx[0]):
        runtimes.append(_llm("llm-onnx", onnx[0], "f32", "onnx-f32-cpu", shape))
        files.append((onnx[0], "model"))
    elif onnx:
        notes.append(f"{onnx[0]} is no decoder with a cache, so it is left out.")
    runtimes.append(_llm("torch", weights[0], precision, f"torch-{precision}-cpu", shape))
    return Found(
        "a language model with safetensors", ("chat",), context, tuple(runtimes), (*files, template), notes=tuple(notes)
    )


def _llm(engine: str, entry: str, precision: str, numeric: str, shape: LlmShape) -> dict[str, Any]:
    llm = {name: value for name, value in msgspec.structs.asdict(shape).items() if value is not None}
    return {"engine": engine, "entry": entry, "precision": precision, "numeric": numeric, "llm": llm}


def _shape(config: dict[str, Any], generation: dict[str, Any]) -> LlmShape:
    """Raises BadProject naming the key that is missing or out of range."""
    heads = _number(config, "num_attention_heads", "n_head")
    hidden = _number(config, "hidden_size", "n_embd")
    eos = generation.get("eos_token_id", config.get("eos_token_id"))
    shape = {
        "layers": _number(config, "num_hidden_layers", "n_layer"),
        "heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "head_size": config.get("head_dim") or hidden // max(heads, 1),
        "hidden": hidden,
        "vocab": _number(config, "vocab_size"),
        "eos": eos if isinstance(eos, list) else [eos],
        "bos": config.get("bos_token_id") if isinstance(config.get("bos_token_id"), int) else None,
        "pad": config.get("pad_token_id") if isinstance(config.get("pad_token_id"), int) else None,
    }
    try:
        return msgspec.convert(shape, LlmShape)
    except msgspec.ValidationError as error:
        why = f"config.json does not tell the model's shape: {error}."
        raise BadProject(why, hint="Set eos_token_id and the sizes in config.json.") from error


def _number(config: dict[str, Any], *keys: str) -> int:
    for key in keys:
        if isinstance(config.get(key), int):
            return int(config[key])
    raise BadProject(f"config.json does not say {keys[0]!r}.", hint="It is not a decoder that the engines know.")


def _context(config: dict[str, Any], usual: int) -> int:
    named = config.get("max_position_embeddings") or config.get("n_positions")
    return named if isinstance(named, int) and named > 0 else usual


def _template(folder: Path, names: list[str]) -> tuple[str, str]:
    """The chat template's file; written out where it stands in the tokenizer's configuration only."""
    for name in ("chat_template.jinja", "chat_template.json"):
        if name in names:
            return name, "chat_template"
    inside = _optional(folder, names, "tokenizer_config.json").get("chat_template")
    if not isinstance(inside, str):
        why = f"{folder} has no chat template: neither chat_template.jinja nor one in tokenizer_config.json."
        raise BadProject(why, hint="Write one; hosts render every chat with it.")
    (folder / "chat_template.jinja").write_text(inside)
    return "chat_template.jinja", "chat_template"


# ONNX ----------------------------------------------------------------------------------------------------------------


def _onnx(folder: Path, names: list[str], entry: str) -> Found:
    inputs, outputs = _ends(folder, entry)
    config = _optional(folder, names, "config.json")
    tokenizer = next(
        (name for name in ("tokenizer.json", f"{entry.rpartition('/')[0]}/tokenizer.json") if name in names), ""
    )
    if tokenizer and _caches(inputs):
        if "config.json" not in names:
            why = f"{folder / entry} is a language model, and there is no config.json that tells its shape."
            raise BadProject(why, hint="Put the model's config.json beside it.")
        shape = _shape(config, _optional(folder, names, "generation_config.json"))
        parts = ((entry, "model"), (tokenizer, "tokenizer"), _template(folder, names))
        runtime = _llm("llm-onnx", entry, "f32", "onnx-f32-cpu", shape)
        return Found("a language model in ONNX", ("chat",), _context(config, 1024), (runtime,), parts)
    runtime = {"engine": "onnx", "entry": entry, "precision": "f32", "numeric": "onnx-f32-cpu"}
    if tokenizer and set(inputs) <= _TEXT_INPUTS:
        sizes = [size for shape_ in outputs.values() for size in shape_[-1:] if isinstance(size, int)]
        width = sizes[0] if sizes else config.get("hidden_size")
        if not isinstance(width, int):
            raise BadProject(f"{entry} does not tell the size of its vectors.", hint="Put its config.json beside it.")
        files = ((entry, "model"), (tokenizer, "tokenizer"))
        return Found(
            "an embedding model in ONNX", ("embed",), min(_context(config, 256), 512), (runtime,), files, width
        )
    shapes = {name: {"type": "array"} for name in inputs}
    schema = {"type": "object", "properties": shapes, "required": sorted(shapes)}
    table = f'[[operation]]\nname = "run"\ninput = {toml(schema)}\n'
    return Found("a model in ONNX", (), 65536, (runtime,), ((entry, "model"),), tables=(table,))


def _ends(folder: Path, name: str) -> tuple[list[str], dict[str, list[int | str]]]:
    """Names of the inputs; outputs with their shapes. The weights stay on the disk where they lie outside the file."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load(str(source_of(folder, name)), load_external_data=False).graph
    except (DecodeError, OSError, ValueError) as error:
        raise BadProject(f"{folder / name} is not an ONNX model.") from error
    weights = {one.name for one in graph.initializer}
    outputs = {one.name: [d.dim_value or d.dim_param for d in one.type.tensor_type.shape.dim] for one in graph.output}
    return [one.name for one in graph.input if one.name not in weights], outputs


def _caches(inputs: list[str]) -> bool:
    return any(name.startswith("past_key") for name in inputs)


def _is_decoder(folder: Path, name: str) -> bool:
    return _caches(_ends(folder, name)[0])


# Code ----------------------------------------------------------------------------------------------------------------


def _wasm(folder: Path, name: str) -> Found:
    with source_of(folder, name).open("rb") as file:
        head = file.read(_HEADER)
    engines = {_CORE: "wasm-core", _COMPONENT: "wasm-component"}
    if head not in engines:
        raise BadProject(f"{folder / name} is neither a WebAssembly module nor a component.")
    engine = engines[head]
    runtime = {"engine": engine, "entry": name, "precision": "none", "numeric": "wasmtime-50", "determinism": "exact"}
    note = "Name the operations that the code answers to; without models, clock and randomness its work can be audited."
    return Found(f"a {engine.replace('-', ' ')}", ("run",), 131072, (runtime,), ((name, "module"),), notes=(note,))


def _image(folder: Path, name: str) -> Found:
    platform = ""
    try:
        with tarfile.open(source_of(folder, name), "r:") as archive:
            platform = _platform(archive)
    except (tarfile.TarError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadProject(f"{folder / name} is not an OCI image archive.", hint="Make one: docker save -o.") from error
    runtime = {"engine": "oci", "entry": name, "precision": "none", "numeric": "none", "platform": platform}
    note = "Name the operations that the image says it is ready for."
    return Found("a container image", ("run",), 131072, (runtime,), ((name, "image"),), notes=(note,))


def _platform(archive: tarfile.TarFile) -> str:
    """From the image's configuration, found through Docker's list or OCI's index. Nothing is extracted."""
    members: dict[str, tarfile.TarInfo] = {}
    for number, member in enumerate(archive):
        if number >= _MOST_MEMBERS:
            raise ValueError("too many members")
        members[member.name.removeprefix("./")] = member

    def read(name: str) -> Any:
        member = members[name]
        if not member.isfile() or member.size > _MOST_INDEX:
            raise ValueError(name)
        file = archive.extractfile(member)
        assert file is not None
        return json.loads(file.read())

    def blob(descriptor: dict[str, Any]) -> Any:
        return read("blobs/" + str(descriptor["digest"]).replace(":", "/", 1))

    if "manifest.json" in members:
        config = read(str(read("manifest.json")[0]["Config"]))
    else:
        config = blob(_config_of(blob, read("index.json")))
    return f"{config['os']}/{config['architecture']}"


def _config_of(blob: Callable[[dict[str, Any]], Any], index: Any) -> dict[str, Any]:
    found = blob(index["manifests"][0])
    if "manifests" in found:  # an index of platforms
        found = blob(found["manifests"][0])
    config: dict[str, Any] = found["config"]
    return config


# Writing -------------------------------------------------------------------------------------------------------------


def toml(value: Any) -> str:
    """A value on one line; JSON's scalars and lists are TOML's."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {toml(one)}" for key, one in value.items()) + " }" if value else "{}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


def _key(name: str) -> str:
    return name if name.isascii() and name.replace("_", "").replace("-", "").isalnum() else toml(name)


def _json(folder: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads(read_text(folder, name))
    except (ValueError, RecursionError) as error:
        raise BadProject(f"{folder / name} is not JSON: {error}.") from error
    if not isinstance(found, dict):
        raise BadProject(f"{folder / name} is not a JSON object.")
    return found


def _optional(folder: Path, names: list[str], name: str) -> dict[str, Any]:
    return _json(folder, name) if name in names else {}
