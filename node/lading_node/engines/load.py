"""From an EngineSpec to a model in memory. Runs in the engine's process, which must run in its own scratch folder.

Each file is read once, its digest is checked, and those very bytes are what the engine gets.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lading_node.engines.errors import EngineError
from lading_node.engines.generation import Generation, Steps, Work, embed, score
from lading_node.engines.model import LanguageModel
from lading_node.engines.port import AgentFile, Embed, EngineSpec, Failed, Generate, Score
from lading_node.engines.tasks import Task, TaskScore, TaskWork
from lading_protocol.messages import CallRequest, ChatRequest

if TYPE_CHECKING:
    from lading_node.engines.embedding import OnnxEmbedder
    from lading_node.engines.host_tensors import OnnxGraph

Order = Generate | Embed | Score


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory; `begin` makes an order into work to be driven."""

    engine: str
    version: str
    begin: Callable[[Order], Work]
    vocab: int = 0
    width: int = 0


def load(spec: EngineSpec, scratch: Path) -> Loaded:
    """Raises EngineError. The heavy libraries are imported here, each only for its own kind."""
    if spec.kind == "memory":
        return _toy(spec)
    if any(file.role == "weights" for file in spec.files):
        raise EngineError("invalid_package", "The model keeps weights in other files; one file is supported.")
    if spec.kind == "onnx":
        return _embedding(spec)
    if spec.kind in ("wasm-core", "wasm-component"):
        return _wasm(spec, scratch)
    return _chat(language_model(spec, scratch), spec.context)


def _toy(spec: EngineSpec) -> Loaded:
    """The only one that chats, embeds and takes calls."""
    from lading_node.engines.toy import WIDTH, ToyModel, toy_task

    model = ToyModel(spec.seed)
    chat = _chat(model, spec.context)
    call = tasks(toy_task, spec.context)

    def begin(order: Order) -> Work:
        if isinstance(order, Embed):
            return Steps(embed(model.embed, order))
        return call(order) if isinstance(order.request, CallRequest) else chat.begin(order)

    return Loaded(chat.engine, chat.version, begin, chat.vocab, WIDTH)


def _chat(model: LanguageModel, context: int) -> Loaded:
    def begin(order: Order) -> Work:
        match order:
            case Generate(request=ChatRequest()):
                return Generation(model, order, context)
            case Score(request=ChatRequest()):
                return Steps(score(model, order, context) for _ in range(1))
            case _:
                return refused(order, "This agent only chats.", "Send a chat.")

    return Loaded(model.engine, model.version, begin, vocab=model.vocab)


def _embedding(spec: EngineSpec) -> Loaded:
    model = embedder(spec)

    def begin(order: Order) -> Work:
        if isinstance(order, Embed):
            return Steps(embed(model.embed, order))
        return refused(order, "This agent only embeds.", "Send inputs to embed.")

    return Loaded(model.engine, model.version, begin, width=model.width)


def _wasm(spec: EngineSpec, scratch: Path) -> Loaded:
    from lading_node.engines.wasm_code import release
    from lading_node.engines.wasm_task import open_task

    call = tasks(open_task(spec, scratch), spec.context)

    def begin(order: Order) -> Work:
        if isinstance(order, Embed):
            return refused(order, "This agent takes calls.", "Send a call.")
        return call(order)

    return Loaded(spec.kind, release(), begin)


def embedder(spec: EngineSpec) -> "OnnxEmbedder":
    from lading_node.engines.chat import load_tokenizer
    from lading_node.engines.embedding import OnnxEmbedder

    tokenizer = load_tokenizer(_read(_file(spec, "tokenizer")))
    return OnnxEmbedder(_read(_file(spec, "model")), tokenizer, spec.context, spec.threads)


def graph(spec: EngineSpec) -> "OnnxGraph":
    from lading_node.engines.host_tensors import OnnxGraph

    return OnnxGraph(_read(_file(spec, "model")), spec.threads)


def language_model(spec: EngineSpec, scratch: Path) -> LanguageModel:
    from lading_node.engines.chat import Chat
    from lading_node.engines.llm_onnx import OnnxLanguageModel

    if spec.llm is None:
        raise EngineError("invalid_package", "The manifest does not say the shape of the language model.")
    template = _file(spec, "chat_template")
    markup = template.path.endswith(".json")
    chat = Chat(_read(_file(spec, "tokenizer")), _read(template), spec.llm, is_markup=markup)
    return OnnxLanguageModel(_read(_file(spec, "model")), chat, spec.llm, spec.context, spec.threads, scratch)


def refused(order: Order, why: str, hint: str) -> Work:
    """The work of an order that this agent does not do."""
    return Steps(iter([Failed(order.id, "invalid_request", why, hint)]))


def tasks(task: Task, context: int) -> Callable[[Generate | Score], Work]:
    """`begin` of an engine that does chats and calls as tasks."""

    def begin(order: Generate | Score) -> Work:
        return TaskWork(task, order, context) if isinstance(order, Generate) else TaskScore(task, order, context)

    return begin


def _file(spec: EngineSpec, role: str) -> AgentFile:
    found = [file for file in spec.files if file.role == role]
    if len(found) != 1:
        raise EngineError("invalid_package", f"The agent has {len(found)} files of the role {role!r}; one is needed.")
    return found[0]


def _read(file: AgentFile) -> bytes:
    try:
        data = Path(file.path).read_bytes()
    except OSError as error:
        raise EngineError("invalid_package", f"The agent's {file.role} cannot be read: {error.strerror}.") from error
    if hashlib.sha256(data).digest() != file.digest:
        raise EngineError("invalid_package", f"The agent's {file.role} is not the file that the manifest names.")
    return data
