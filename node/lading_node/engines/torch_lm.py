"""The `torch` engine: a decoder of the transformers library over safetensors weights, which computes logits and nothing
else; of several sequences in one pass where the model allows it.

No file of a package reaches the library: it gets numbers from a checked configuration, and tensors to compute with.
Tokens are chosen by our own sampler.
"""

from collections.abc import Sequence
from typing import Any
from weakref import WeakSet

import numpy as np

from lading_node.core.sketch import States
from lading_node.engines import files, lora, weights
from lading_node.engines.chat import Chat, Spoken
from lading_node.engines.errors import EngineError, one_line
from lading_node.engines.hf_config import HfConfig, read_config
from lading_node.engines.model import Advance, Logits
from lading_node.engines.port import EngineSpec
from lading_node.engines.quiet_torch import AutoConfig, AutoModelForCausalLM, DynamicLayer, no_init_weights, torch
from lading_node.engines.torch_stack import Part, Stack
from lading_protocol.parts import LlmShape

_PRECISIONS = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
_HEAD = "lm_head.weight"
# Sequences in one pass at most. Those of fewer than 2**SHORT positions stand side by side whatever their lengths, of
# the others only those of like length.
MOST, SHORT = 64, 10
# Ways to turn positions whose angles are the same whatever else is in the pass.
FIXED_ANGLES = frozenset({"default", "linear", "llama3", "yarn"})


def open_model(spec: EngineSpec, chat: Chat, shape: LlmShape) -> "TorchLanguageModel":
    """Raises EngineError."""
    if spec.precision not in _PRECISIONS:
        known = ", ".join(_PRECISIONS)
        raise EngineError("invalid_package", f"The torch engine has no precision {spec.precision!r}; it has {known}.")
    device = _device(spec.device)
    if spec.precision == "f16" and device == "cpu":
        raise EngineError("engine_error", "f16 needs a GPU, and this engine may use none.", hint="Serve bf16 or f32.")
    _settle(spec.threads)
    configs = [file for file in spec.files if file.role == "config" and files.name_of(file) == "config.json"]
    config = read_config(files.read(files.one(configs, "config")), shape, spec.context)
    try:
        model = _build(spec, config, device)
    except EngineError:
        raise
    except Exception as error:  # whatever the library finds wrong with the numbers that it was given
        raise _translated(error, "invalid_package", "The model cannot be built") from error
    return TorchLanguageModel(model, chat, shape, device, f"torch-{spec.precision}-{device}")


def _device(allowed: bool) -> str:
    """The best device that torch sees, by its name there."""
    if allowed:
        for name in ("cuda", "xpu", "mps"):
            backend = getattr(torch, name, None)
            if backend is not None and backend.is_available():
                return name
    return "cpu"


def _settle(threads: int) -> None:
    """Everything that the order of sums hangs on, the same in every engine of a numeric class."""
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # TF32 keeps 10 bits of the mantissa: it is another numeric class, not f32.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False


def _build(spec: EngineSpec, config: HfConfig, device: str) -> Any:
    """The files are compared with a model that takes no memory before the real one is set up."""
    shards = [file for file in spec.files if file.role == "weights"]
    outline = _empty(config, spec.precision, "meta")
    tied = outline.get_output_embeddings().weight is outline.get_input_embeddings().weight
    shapes = {name: tuple(tensor.shape) for name, tensor in outline.state_dict().items()}
    spare = frozenset({_HEAD}) if tied and _HEAD in shapes else frozenset[str]()
    weights.check({name: shape for name, shape in shapes.items() if name not in spare}, shards, spare)
    model = _empty(config, spec.precision, device)
    places = model.state_dict()
    weights.fill(places, shards, spare)
    lora.merge(places, spec.files)
    _widen_head(model)
    return model.eval()


def _widen_head(model: Any) -> None:
    """The last projection in f32, whatever the precision of the rest.

    Rounded to bf16, neighbouring logits tie, and honest hosts differ by ten times as much (docs/verification.md).
    """
    head = model.get_output_embeddings()
    if head.weight.dtype == torch.float32:
        return
    # A copy: the embedding that it may share its weights with stays as it is.
    head.weight = torch.nn.Parameter(head.weight.detach().float(), requires_grad=False)
    if head.bias is not None:
        head.bias = torch.nn.Parameter(head.bias.detach().float(), requires_grad=False)
    head.register_forward_pre_hook(lambda _module, given: (given[0].float(),))


def _empty(config: HfConfig, precision: str, device: str) -> Any:
    """Weights are set aside and not written. What a model computes from its configuration alone is right."""
    # Which tokens are special is the manifest's word; to the library they are like any other.
    no_tokens = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
    known = AutoConfig.for_model(config.model_type, **config.keys, **no_tokens)
    with torch.device(device), no_init_weights():
        model = AutoModelForCausalLM.from_config(
            known, dtype=_PRECISIONS[precision], attn_implementation="sdpa", trust_remote_code=False
        )
    model.tie_weights()
    return model


class TorchLanguageModel(Spoken):
    engine = "torch"

    def __init__(self, model: Any, chat: Chat, shape: LlmShape, device: str, numeric: str) -> None:
        """Raises EngineError. `numeric` is the class of its arithmetic."""
        self._model = model
        self._chat = chat
        self._device = device
        self.numeric = numeric
        self.version = f"{torch.__version__} {numeric}"
        self.vocab = shape.vocab
        self.ends = shape.eos
        self.pieces = chat.pieces
        self.states = shape.hidden
        self._last: Any = None
        self._most = MOST
        self._stacked = WeakSet[TorchContext]()
        # What the last norm gives is no part of the library's answer, unless every layer's output is asked for.
        model.base_model.register_forward_hook(self._note)
        self._stacks = False
        context = self.open([self.ends[0]], 1)
        row = context.logits()
        if row.shape != (self.vocab,):
            raise EngineError("invalid_package", f"The model gives {row.shape} logits; {self.vocab} are needed.")
        if context.states().shape != (1, self.states):
            raise EngineError("invalid_package", f"The model's states are not {self.states} wide.")
        self._stacks = _can_stack(model, context.part.cache)

    def _note(self, _module: Any, _given: Any, made: Any) -> None:
        self._last = made.last_hidden_state

    def open(self, ids: Sequence[int], room: int) -> "TorchContext":
        self._most = MOST
        return TorchContext(self, ids)

    def rows(self, ids: Sequence[int], count: int) -> Logits:
        """One prefill; only the last `count` rows go through the model's head."""
        return _numbers(self.forward([ids], None, count).logits[0])

    def traced(self, ids: Sequence[int], count: int) -> tuple[Logits, States]:
        rows = self.rows(ids, count)
        return rows, self.last_states()

    def last_states(self) -> States:
        """Of the last forward pass over one sequence."""
        return _numbers(self._last[0])

    @property
    def advance(self) -> Advance | None:
        return self._advance if self._stacks else None

    def _advance(self, contexts: Sequence[Any], tokens: Sequence[int]) -> list[Exception | None]:
        """Sequences of like length side by side, so that what is set aside for the shorter ones is bounded."""
        faults: list[Exception | None] = [None] * len(contexts)
        alike: dict[int, list[int]] = {}
        for at, context in enumerate(contexts):
            alike.setdefault(max(SHORT, context.part.length.bit_length()), []).append(at)
        for found in alike.values():
            for chunk in [found[at : at + self._most] for at in range(0, len(found), self._most)]:
                made = self._tried([contexts[at] for at in chunk], [tokens[at] for at in chunk])
                for at, fault in zip(chunk, made, strict=True):
                    faults[at] = fault
        return faults

    def _tried(self, contexts: Sequence["TorchContext"], tokens: Sequence[int]) -> list[Exception | None]:
        """A pass that fails has changed nothing, and is made again by halves: each may still have room by itself."""
        try:
            self.append(contexts, tokens)
            return [None] * len(contexts)
        except Exception as error:
            if len(contexts) == 1:
                return [error]
        # Until the next sequence begins, or every one of its steps would be tried in vain.
        half = self._most = len(contexts) // 2
        return self._tried(contexts[:half], tokens[:half]) + self._tried(contexts[half:], tokens[half:])

    def append(self, contexts: Sequence["TorchContext"], tokens: Sequence[int]) -> None:
        """One pass for all; of several only where the model has stacks. Raises EngineError."""
        ids = [[token] for token in tokens]
        with torch.inference_mode():
            if self._stacks:
                stack = self._stack(contexts)
                result = self.forward(ids, stack, 1, attention_mask=stack.mask, position_ids=stack.places)
            else:
                result = self.forward(ids, contexts[0].part.cache, 1)
            # Brought to the processor at once.
            both = _numbers(torch.cat((result.logits[:, -1].float(), self._last[:, -1].float()), 1))
            if self._stacks:
                stack.grow()
        states = both[:, self.vocab :].copy()
        for at, context in enumerate(contexts):
            context.appended(both[at, : self.vocab], states[at : at + 1])

    def _stack(self, contexts: Sequence["TorchContext"]) -> Stack:
        """The one that these contexts are in, just they and in this order; else one that they are moved to."""
        parts = [context.part for context in contexts]
        stack = parts[0].cache
        if isinstance(stack, Stack) and stack.holds(parts):
            return stack
        # Who is not among them would keep all of the old one.
        old = {id(part.cache) for part in parts}
        for other in set(self._stacked).difference(contexts):
            if id(other.part.cache) in old:
                other.part = Part(Stack([other.part]), 0, other.part.length)
        stack = Stack(parts)
        for at, context in enumerate(contexts):
            context.part = Part(stack, at, context.part.length)
        self._stacked.update(contexts)
        return stack

    def forward(self, ids: Sequence[Sequence[int]], cache: Any, keep: int, **more: Any) -> Any:
        """Raises EngineError."""
        try:
            with torch.inference_mode():
                tokens = torch.tensor([list(row) for row in ids], device=self._device)
                return self._model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=keep, **more)
        except RuntimeError as error:
            raise _translated(error, "engine_error", "torch failed") from error


class TorchContext:
    """`part` is where its keys and values are: in the cache of its prefill, later in a stack, alone or not."""

    __slots__ = ("__weakref__", "_model", "_row", "_states", "part")

    def __init__(self, model: TorchLanguageModel, ids: Sequence[int]) -> None:
        self._model = model
        result = model.forward([ids], None, 1)
        self.part = Part(result.past_key_values, 0, len(ids))
        self._row = _numbers(result.logits[0, -1])
        self._states = model.last_states()

    def logits(self) -> Logits:
        return self._row

    def states(self) -> States:
        return self._states

    def append(self, token: int) -> None:
        self._model.append([self], [token])

    def appended(self, row: Logits, states: States) -> None:
        self._row, self._states = row, states
        self.part = self.part._replace(length=self.part.length + 1)


def _can_stack(model: Any, cache: Any) -> bool:
    """Whether the library keeps every position of every layer, and turns positions by angles that do not follow the
    longest sequence of a pass."""
    turning = getattr(model.config, "rope_parameters", None) or {}
    return turning.get("rope_type") in FIXED_ANGLES and all(type(layer) is DynamicLayer for layer in cache.layers)


def _numbers(values: Any) -> Logits:
    found: Logits = np.asarray(values.float().cpu().numpy(), np.float32)
    return found


def _translated(error: Exception, code: Any, what: str) -> EngineError:
    """torch says that memory is lacking in a class of its own on a GPU, and in words on a processor."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
        return EngineError("resource_exhausted", "The model does not fit into the memory that the engine has.")
    return EngineError(code, f"{what}: {one_line(error, 300)}")
