"""The agent.toml that `lading agent init` writes: all that was found, and in comments all that may be added."""

from pathlib import Path

from lading.detect import Found, toml

EXAMPLE = Found(
    "nothing that is known; this is an example",
    ("chat",),
    1024,
    (
        {
            "engine": "llm-onnx",
            "entry": "model.onnx",
            "precision": "f32",
            "numeric": "onnx-f32-cpu",
            "llm": {
                "layers": 4,
                "heads": 4,
                "kv_heads": 2,
                "head_size": 32,
                "hidden": 128,
                "vocab": 1024,
                "eos": [1],
            },
        },
    ),
    (("model.onnx", "model"), ("tokenizer.json", "tokenizer"), ("chat_template.jinja", "chat_template")),
)

_HEAD = """\
# An agent: what it is, how it runs, and who shares in what it earns. Found here: {what}.
# Next: lading agent run {folder}    then: lading agent publish {folder}

[agent]
name = {name}
version = "1"
summary = "One line that says what it does."
licence = "Apache-2.0"         # the licence of what is in the package; correct it
operations = {operations}{width}
context = {context}             # tokens, prompt and answer together
"""

_TAIL = """
# Who shares in the revenue, in hundredths of a percent; the rest goes to the host that does the work.
[[party]]
role = "maker"                 # maker, oem, weaver or curator
bps = 1000
# payee = "0x..."              # "publisher" when left out

# [revenue]
# royalty_bps = 500            # what agents derived from this one owe its owner
# floor_in = "0.0001"          # the least price per 1,000 prompt tokens, in coins
# floor_out = "0.0002"
# upstream = [{ agent = "0x...", bps = 300 }]

# What it asks for beyond its own files; all of it is denied unless it stands here and the host agrees.
# [capabilities]
# models = ["main"]            # models that code reaches through its host
# clock = false
# randomness = false
# egress = []                  # hosts that it may reach
# state = 0                    # bytes that it may keep
# device = false               # a GPU

# [resources]                  # claims; a host goes by what it measures
# memory = 0
# threads = 1

# An operation with a schema, instead of a name above. `input` may also name a JSON file.
# [[operation]]
# name = "summarise"
# input = { type = "object", required = ["text"] }
# stream = true

# Test vectors: here, or a line of JSON each in vectors.jsonl. `lading agent test --record` writes what is answered.
# [[vector]]
# operation = "chat"
# input = "Say hello."
# max_tokens = 16
"""


def sketch(found: Found, name: str, folder: Path) -> str:
    width = f"\nwidth = {found.width}" if found.width is not None else ""
    parts = [
        _HEAD.format(
            what=found.what,
            folder=folder if str(folder).isprintable() else "FOLDER",
            name=toml(name),
            operations=toml(found.operations),
            width=width,
            context=found.context,
        )
    ]
    parts += [f"\n# {note}\n" for note in found.notes]
    parts += [f"\n{table}" for table in found.tables]
    for runtime in found.runtimes:
        lines = "".join(f"{key} = {toml(value)}\n" for key, value in runtime.items() if value != "")
        parts.append(f"\n[[runtime]]                    # in order of preference\n{lines}")
    parts += [f"\n[[file]]\npath = {toml(path)}\nrole = {toml(role)}\n" for path, role in found.files]
    return "".join(parts) + _TAIL
