"""From an EngineSpec to a model in memory. Runs in the engine's process, which must run in its own scratch folder.

Each file is read once, its digest is checked, and those very bytes are what the engine gets.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lading_node.engines import files
from lading_node.engines.errors import EngineError
from lading_node.engines.generation import Generation, Steps, Work, embed, score
from lading_node.engines.model import Advance, LanguageModel
from lading_node.engines.port import Embed, EngineSpec, Failed, Generate, Score
from lading_node.engines.tasks import Task, TaskScore, TaskWork
from lading_protocol.messages import CallRequest, ChatRequest

if TYPE_CHECKING:
    from lading_node.engines.embedding import OnnxEmbedder
    from lading_node.engines.onnx_session import OnnxSession

Order = Generate | Embed | Score
# Where torch computes, by the names at the end of its numeric classes.
DEVICES = ("cpu", "cuda", "xpu", "mps")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory; `begin` makes an order into work to be driven, `advance` is its model's."""

    engine: str
    version: str
    begin: Callable[[Order], Work]
    vocab: int = 0
    width: int = 0
    advance: Advance | None = None


def load(spec: EngineSpec, scratch: Path) -> Loaded:
    """Raises EngineError. The heavy libraries are imported here, each only for its own kind."""
    if spec.kind == "memory":
        return _toy(spec)
    if spec.kind == "torch":
        return _chat(language_model(spec, scratch), spec.context)
    if any(file.role in ("weights", "adapter") for file in spec.files):
        why = "The model keeps weights in other files; this engine takes them in one."
        raise EngineError("invalid_package", why)
    if spec.kind == "onnx":
        return _onnx(spec)
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

    return Loaded(model.engine, model.version, begin, vocab=model.vocab, advance=model.advance)


def _onnx(spec: EngineSpec) -> Loaded:
    """Embeds, or takes calls: one graph does not do both."""
    names = {operation.name for operation in spec.operations}
    if names <= {"embed"}:
        return _embedding(spec)
    if names & {"embed", "chat"}:
        raise EngineError("invalid_package", "An ONNX agent embeds or takes calls, and does not chat.")
    from lading_node.engines.chat import load_tokenizer
    from lading_node.engines.onnx_call import OnnxCalls
    from lading_node.engines.onnx_session import VERSION, OnnxSession

    words = [load_tokenizer(files.read(file)) for file in spec.files if file.role == "tokenizer"]
    session = OnnxSession(files.read(files.one(spec.files, "model")), spec.threads)
    call = tasks(OnnxCalls(session, spec.operations, words[0] if words else None).task, spec.context)

    def begin(order: Order) -> Work:
        if isinstance(order, Embed):
            return refused(order, "This agent does not embed.", "Send a call.")
        return call(order)

    return Loaded("onnx", VERSION, begin)


def _embedding(spec: EngineSpec) -> Loaded:
    model = embedder(spec)

    def begin(order: Order) -> Work:
        if isinstance(order, Embed):
            return Steps(embed(model.embed, order))
        return refused(order, "This agent only embeds.", "Send inputs to embed.")

    return Loaded(model.engine, model.version, begin, width=model.width)


def _wasm(spec: EngineSpec, scratch: Path) -> Loaded:
    from lading_node.engines.wasm_fiber import RELEASE
    from lading_node.engines.wasm_task import open_task

    call = tasks(open_task(spec, scratch), spec.context)

    def begin(order: Order) -> Work:
        if isinstance(order, Embed):
            return refused(order, "This agent takes calls.", "Send a call.")
        return call(order)

    return Loaded(spec.kind, RELEASE, begin)


def embedder(spec: EngineSpec) -> "OnnxEmbedder":
    from lading_node.engines.chat import load_tokenizer
    from lading_node.engines.embedding import OnnxEmbedder

    tokenizer = load_tokenizer(files.read(files.one(spec.files, "tokenizer")))
    return OnnxEmbedder(files.read(files.one(spec.files, "model")), tokenizer, spec.context, spec.threads)


def graph(spec: EngineSpec) -> "OnnxSession":
    from lading_node.engines.onnx_session import OnnxSession

    return OnnxSession(files.read(files.one(spec.files, "model")), spec.threads)


def language_model(spec: EngineSpec, scratch: Path) -> LanguageModel:
    from lading_node.engines.chat import Chat

    if spec.llm is None:
        raise EngineError("invalid_package", "The manifest does not say the shape of the language model.")
    template = files.one(spec.files, "chat_template")
    markup = template.path.endswith(".json")
    tokenizer = files.read(files.one(spec.files, "tokenizer"))
    chat = Chat(tokenizer, files.read(template), spec.llm, is_markup=markup)
    if spec.kind == "torch":
        from lading_node.engines.torch_lm import open_model

        model = open_model(spec, chat, spec.llm)
        check_class(spec.numeric, model.numeric)
        return model
    from lading_node.engines.llm_onnx import OnnxLanguageModel

    data = files.read(files.one(spec.files, "model"))
    return OnnxLanguageModel(data, chat, spec.llm, spec.context, spec.threads, scratch)


def check_class(named: str, computed: str) -> None:
    """An honest host that computes in another class than its offer names would be audited by limits that are not its
    own. Raises EngineError. A class with a name of the publisher's own says nothing of a device."""
    if named.startswith("torch-") and named.rpartition("-")[2] in DEVICES and named != computed:
        why = f"The agent is offered in the class {named}, and here it computes in {computed}."
        raise EngineError("engine_error", why, hint="Serve it where that device is, or another runtime of the agent.")


def refused(order: Order, why: str, hint: str) -> Work:
    """The work of an order that this agent does not do."""
    return Steps(iter([Failed(order.id, "invalid_request", why, hint)]))


def tasks(task: Task, context: int) -> Callable[[Generate | Score], Work]:
    """`begin` of an engine that does chats and calls as tasks."""

    def begin(order: Generate | Score) -> Work:
        return TaskWork(task, order, context) if isinstance(order, Generate) else TaskScore(task, order, context)

    return begin
