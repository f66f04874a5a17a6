"""Models that a wasm agent reaches by host import, under the aliases that its manifest declares.

They run in the engine's own process, from files whose digests were checked. What goes wrong here is the guest's to
hear: `Refused`, with a number for core modules and words for components.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec
from msgspec import Meta

from lading_node.engines.errors import EngineError
from lading_node.engines.generation import Generation
from lading_node.engines.model import LanguageModel
from lading_node.engines.port import EngineSpec, Failed, Finished, Generate, HostModel, Run, Started
from lading_protocol.messages import ChatRequest, Message, Sampler

if TYPE_CHECKING:
    from lading_node.engines.onnx_session import OnnxSession

UNKNOWN_ALIAS, BAD_ARGUMENT, TOO_LONG, MODEL_FAILED, TOO_SLOW = -1, -2, -3, -4, -5
# Tokens that a model sees at once, prompt and output together.
CONTEXT = 4096
# Seconds of model time that one stream of text may take.
STREAM_S = 60.0
STREAMS = 8
# Bytes of tensors in one message to a model.
MOST_TENSORS = 16 << 20

_Model = TypeVar("_Model")
_CODES = {"invalid_request": BAD_ARGUMENT, "context_exceeded": TOO_LONG}


class Refused(Exception):
    """The guest gets `code` (below zero) or the words; its call goes on."""

    def __init__(self, code: int, why: str) -> None:
        super().__init__(why)
        self.code = code
        self.why = why


class Turn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    role: Annotated[str, Meta(max_length=16)]
    content: str


class Prompt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `generate` takes, as JSON. Greedy and so repeatable, unless the guest asks otherwise; `seed` is a number."""

    messages: Annotated[tuple[Turn, ...], Meta(min_length=1, max_length=64)]
    max_tokens: Annotated[int, Meta(ge=1, le=CONTEXT)] = 256
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.0
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Meta(ge=0, le=2**20)] = 0
    seed: Annotated[int, Meta(ge=0, le=2**62)] = 0
    stop: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=256)], ...], Meta(max_length=4)] = ()


class TextStream:
    """An answer of a language model in the making. `tokens` counts what it read and wrote and was not charged yet."""

    def __init__(self, model: LanguageModel, prompt: Prompt) -> None:
        """Raises Refused."""
        sampler = Sampler(prompt.seed.to_bytes(32, "big"), prompt.temperature, prompt.top_p, prompt.top_k)
        turns = tuple(Message(turn.role, turn.content) for turn in prompt.messages)
        request = ChatRequest(turns, prompt.max_tokens, sampler, prompt.stop)
        self._work = Generation(model, Generate("guest", request), CONTEXT)
        self._text = bytearray()
        self._took = 0.0
        self._over = False
        self.tokens = 0
        self._step()

    def next(self, most: int) -> bytes:
        """Up to `most` bytes of text; none at the end. Raises Refused."""
        while not self._text and not self._over:
            self._step()
        given = bytes(self._text[:most])
        del self._text[:most]
        return given

    def _step(self) -> None:
        if self._took > STREAM_S:
            raise Refused(TOO_SLOW, f"The model took more than {STREAM_S:g} s for one answer.")
        began = time.perf_counter()
        self._work.step()
        self._took += time.perf_counter() - began
        for event in self._work.take():
            match event:
                case Started(prompt_tokens=count):
                    self.tokens += count
                case Run(ids=ids, text=text):
                    self.tokens += len(ids)
                    self._text += text.encode()
                case Finished():
                    self._over = True
                case Failed(code=code, message=message):
                    self._over = True
                    raise Refused(_CODES.get(code, MODEL_FAILED), message)
                case _:
                    raise AssertionError(event)


class HostModels:
    """What the aliases stand for. Nothing of a call stays here."""

    def __init__(self) -> None:
        self._embedders: dict[str, Callable[[str], tuple[bytes, int]]] = {}
        self._speakers: dict[str, LanguageModel] = {}
        self._graphs: dict[str, OnnxSession] = {}

    def load(self, spec: EngineSpec, scratch: Path) -> None:
        """All that the spec names. Raises EngineError."""
        for model in spec.models:
            self._load(model, spec, scratch)

    def _load(self, model: HostModel, spec: EngineSpec, scratch: Path) -> None:
        from lading_node.engines.load import embedder, graph, language_model

        own = msgspec.structs.replace(spec, kind=model.kind, files=model.files, llm=model.llm, context=CONTEXT)
        if model.kind == "onnx" and any(file.role == "tokenizer" for file in model.files):
            self._embedders[model.alias] = embedder(own).embed
        elif model.kind == "onnx":
            self._graphs[model.alias] = graph(own)
        elif model.kind == "llm-onnx":
            place = scratch / model.alias
            place.mkdir()
            self._speakers[model.alias] = language_model(own, place)
        else:
            raise EngineError("invalid_package", f"No {model.kind} model is reached from wasm ({model.alias!r}).")

    def embed(self, alias: str, text: str) -> tuple[bytes, int]:
        """A vector as little-endian float32, and the tokens read. Raises Refused."""
        try:
            return _find(self._embedders, alias, "embeds")(text)
        except EngineError as error:
            raise Refused(_CODES.get(error.failure, MODEL_FAILED), error.message) from error
        except Refused:
            raise
        except Exception as error:  # the runtime's own errors derive from Exception only
            raise Refused(MODEL_FAILED, f"The model {alias!r} failed on this text.") from error

    def tensors(self, alias: str, data: bytes) -> tuple[bytes, int]:
        """Tensors in the form of host_tensors, and how many numbers went in and came out. Raises Refused."""
        model = _find(self._graphs, alias, "takes tensors")
        from lading_node.engines.host_tensors import pack, unpack

        try:
            given = unpack(data)
        except (ValueError, RecursionError) as error:
            raise Refused(BAD_ARGUMENT, f"The tensors do not read: {error}") from error
        names = [output.name for output in model.outputs]
        began = time.perf_counter()
        try:
            made = dict(zip(names, model.run(names, given, STREAM_S), strict=True))
            packed = pack(made)
        except (EngineError, ValueError) as error:
            late = time.perf_counter() - began >= STREAM_S
            raise Refused(
                TOO_SLOW if late else MODEL_FAILED, f"The model {alias!r} failed on these tensors."
            ) from error
        return packed, sum(tensor.size for tensor in (*given.values(), *made.values()))

    def generate(self, alias: str, prompt: bytes) -> TextStream:
        """Raises Refused."""
        model = _find(self._speakers, alias, "writes text")
        try:
            asked = msgspec.json.decode(prompt, type=Prompt)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Refused(BAD_ARGUMENT, f"The request to the model does not read: {error}") from error
        return TextStream(model, asked)


def _find(among: dict[str, _Model], alias: str, does: str) -> _Model:
    if alias not in among:
        raise Refused(UNKNOWN_ALIAS, f"The manifest declares no model {alias[:64]!r} that {does}.")
    return among[alias]


NO_MODELS = HostModels()
