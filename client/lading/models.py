"""Which files of a package make a model, where the project does not say: one model for each way to run that has its own
files, "main" the first.
"""

import json
from pathlib import Path

from msgspec.structs import replace

from lading.errors import BadProject
from lading.project import ModelEntry, Project, read_text
from lading_protocol.parts import File, Model, Runtime
from lading_protocol.rules import MODEL_ROLES

# What these run is a module or an image; a model is only what it asks of the host.
CODE_ENGINES = frozenset({"wasm-core", "wasm-component", "oci"})
_SHARED = MODEL_ROLES - {"model", "weights"}


def derived(project: Project, files: tuple[File, ...], folder: Path) -> tuple[tuple[Model, ...], tuple[Runtime, ...]]:
    """The models and the runtimes that name them. Raises BadProject."""
    if project.model:
        return tuple(_named(one) for one in project.model), project.runtime
    models: list[Model] = []
    runtimes = []
    for runtime in project.runtime:
        paths = _paths(runtime, project, files)
        if runtime.engine in CODE_ENGINES or runtime.model is not None or not paths:
            runtimes.append(runtime)
            continue
        same = next((one for one in models if one.files == paths and one.precision == runtime.precision), None)
        if same is None:
            alias = "main" if not models else runtime.engine
            same = Model(alias, _architecture(project, folder, runtime), runtime.precision, paths)
            models.append(same)
        runtimes.append(replace(runtime, model=same.alias))
    if len({one.alias for one in models}) != len(models):
        why = "Two runtimes of one engine run different models."
        raise BadProject(why, hint="Name the models: write [[model]] tables, and `model` in each [[runtime]].")
    return tuple(models), tuple(runtimes)


def _paths(runtime: Runtime, project: Project, files: tuple[File, ...]) -> tuple[str, ...]:
    """Safetensors are torch's where it stands among the runtimes; else they belong to whatever runs."""
    has_torch = any(one.engine == "torch" for one in project.runtime)
    weights = runtime.engine == "torch" or not has_torch
    return tuple(
        file.path
        for file in files
        if (file.path == runtime.entry and file.role in MODEL_ROLES)
        or file.role in _SHARED
        or (file.role == "weights" and weights)
    )


def _named(entry: ModelEntry) -> Model:
    return Model(entry.alias, entry.architecture, entry.precision, entry.files, entry.bases)


def _architecture(project: Project, folder: Path, runtime: Runtime) -> str:
    """As the model's own configuration calls it, where it has one."""
    for entry in project.file:
        if entry.role == "config" and entry.path.endswith("config.json"):
            try:
                config = json.loads(read_text(folder, entry.source or entry.path))
                name = (config.get("architectures") or [config.get("model_type")])[0]
            except (ValueError, AttributeError, LookupError, TypeError, RecursionError):
                continue
            if isinstance(name, str) and 0 < len(name) <= 64:
                return name
    return "decoder" if runtime.llm is not None else "unknown"
