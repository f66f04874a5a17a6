"""One call of a wasm guest: what it may still cost, what it said, and what the host does for it.

The order of emissions depends on nothing but what the guest does: fuel is looked at where text or a model's tokens
come, and in between only to say earlier what would be said there anyway. Knows neither ABI.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

from wasmtime import Store, Trap, WasmtimeError

from lading_node.engines import wasm_fiber as fiber
from lading_node.engines.errors import EngineError, one_line
from lading_node.engines.host_models import BAD_ARGUMENT, STREAMS, HostModels, Refused, TextStream
from lading_node.engines.tasks import Budget, Charge, Emission
from lading_protocol.work import FUEL, FUEL_PER_TOKEN, MODEL, PIECE

# Seconds of its own time that a call may take, its models' included; not what it waits for its reader.
CALL_S = 300.0
# A model that takes and gives plain numbers is charged a token for so many of them, begun ones too.
NUMBERS_PER_TOKEN = 256


class Halt(Exception):
    """Raised in a host function: the guest is not to go on. Why stands in the call."""


# What a host function costs in fuel: about what it costs in time, so that nobody keeps a host busy for nothing.
CALL_FUEL = 50_000
BYTE_FUEL = 10
# Of a list that a component hands over number by number.
ITEM_FUEL = 5_000


def guarded(stage: "Stage", function: Callable[..., Any]) -> Callable[..., Any]:
    """A host function that stops the guest at any error, and remembers which. It is handed the call first."""

    def run(*arguments: Any) -> Any:
        call = stage.call
        try:
            return function(call, *arguments)
        except Halt:
            raise
        except EngineError as error:
            call.failure = error
        except MemoryError:
            call.failure = EngineError("resource_exhausted", "The engine ran out of memory.")
        except Exception as error:
            what = f"{type(error).__name__}: {one_line(error)}"
            call.failure = EngineError("engine_error", f"A function of the host failed: {what}")
        raise Halt

    return run


class Meter:
    """Text and charges in the order in which they are due. `room` is how many work tokens may still come."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._waiting: list[Emission] = []
        self._rest = bytearray()
        self._charged = 0
        self.room = budget.left

    def text(self, data: bytes) -> None:
        """Whole work tokens go out, so that an answer costs the same in however small parts it was said."""
        self._rest += data
        whole = len(self._rest) - len(self._rest) % PIECE
        if whole:
            self._put(bytes(self._rest[:whole]), whole // PIECE)
            del self._rest[:whole]

    def fuel(self, burnt: int) -> None:
        """`burnt` since the beginning of the call; what is not a whole token waits."""
        if (more := burnt // FUEL_PER_TOKEN - self._charged) > 0:
            self._charged += more
            self._put(Charge(FUEL, more), more)

    def model(self, tokens: int) -> None:
        if tokens:
            self._put(Charge(MODEL, tokens), tokens)

    def end(self, burnt: int) -> None:
        """The last of the text, and a token for fuel that was started."""
        if self._rest:
            self._put(bytes(self._rest), 1)
            self._rest.clear()
        self.fuel(burnt + FUEL_PER_TOKEN - 1)

    def overrun(self) -> None:
        """More than the budget allows: it is cut there."""
        self._put(Charge(FUEL, self.room + 1), self.room + 1)

    def take(self) -> list[Emission]:
        taken, self._waiting = self._waiting, []
        return taken

    def renew(self) -> None:
        """What was taken has been counted against the budget."""
        self.room = self._budget.left

    def _put(self, emission: Emission, tokens: int) -> None:
        last = self._waiting[-1] if self._waiting else None
        if isinstance(emission, bytes) and isinstance(last, bytes):
            self._waiting[-1] = last + emission
        else:
            self._waiting.append(emission)
        self.room -= tokens


class Stage:
    """Whose turn it is. One guest runs at a time, and the host functions are the same ones for all."""

    call: "Call"


class Call:
    """What the host functions of both ABIs do. `context` is whatever wasmtime hands them; it may be the store.

    `guest` is the ABI's own, set when it is ready. A host function that meets an error of ours sets `failure`. `over`:
    the fuel has run out.
    """

    def __init__(self, budget: Budget, models: HostModels, stage: Stage) -> None:
        self._stage = stage
        self.guest: Any = None
        self.fuel = budget.left * FUEL_PER_TOKEN
        self.meter = Meter(budget)
        self.failure: EngineError | None = None
        self.over = False
        self._models = models
        self._streams: list[TextStream] = []
        self._took = 0.0
        self._worked = False

    def work(self, context: Any, size: int = 0, items: int = 0) -> None:
        """The host is about to work for the guest, over so many bytes."""
        fiber.burn(context, CALL_FUEL + size * BYTE_FUEL + items * ITEM_FUEL)

    def emit(self, context: Any, data: bytes) -> None:
        self._settle(context)
        self.meter.text(data)
        self._stop_if_over()

    def finish(self, context: Any, data: bytes) -> None:
        """The last of the answer, given as a value. Outside the guest, so what is over the budget is cut later."""
        self._settle(context)
        self.meter.text(data[: self.most()])

    def most(self) -> int:
        """Bytes of text that are worth copying: one token more than the budget allows."""
        return (self.meter.room + 1) * PIECE

    def fail(self, words: str) -> None:
        """The agent refuses the request, in its own words."""
        said = "".join(c for c in one_line(words) if c.isprintable())
        said = said or "it does not say why"
        raise EngineError("invalid_request", f"The agent refuses the request: {said}", hint="Correct the input.")

    def embed(self, context: Any, alias: str, text: str) -> bytes:
        """Raises Refused."""
        vector, tokens = self._models.embed(alias, text)
        self._charge(context, tokens)
        return vector

    def tensors(self, context: Any, alias: str, data: bytes) -> bytes:
        """Raises Refused."""
        made, numbers = self._models.tensors(alias, data)
        self._charge(context, -(-numbers // NUMBERS_PER_TOKEN))
        return made

    def generate(self, context: Any, alias: str, prompt: bytes) -> int:
        """Raises Refused."""
        if len(self._streams) == STREAMS:
            raise Refused(BAD_ARGUMENT, f"A call has at most {STREAMS} streams of text.")
        stream = self._models.generate(alias, prompt)
        self._streams.append(stream)
        self._charge_stream(context, stream)
        return len(self._streams) - 1

    def next(self, context: Any, handle: int, most: int) -> bytes:
        """Raises Refused."""
        if not 0 <= handle < len(self._streams):
            raise Refused(BAD_ARGUMENT, f"There is no stream {handle}.")
        stream = self._streams[handle]
        try:
            return stream.next(most)
        finally:
            self._charge_stream(context, stream)

    def steps(self, store: Store, run: fiber.Run) -> Iterator[list[Emission]]:
        """Drive the guest; what it said, at every stop. Raises EngineError. Out of fuel is the budget's end."""
        try:
            while self._go_on(run):
                self._settle(store)
                yield self.meter.take()
                self.meter.renew()
                if self._worked:
                    self._worked = False
                    fiber.stop_after(store, fiber.SLICE)
        except (Trap, WasmtimeError) as error:
            fiber.forget_errors()
            if self.failure is not None:
                raise self.failure from None
            if self.meter.room >= 0:
                self._explain(error)
        yield self.meter.take()
        self.meter.renew()

    def _go_on(self, run: fiber.Run) -> bool:
        """Whether the guest stands still and has more to do."""
        self._stage.call = self
        began = time.perf_counter()
        more = next(run, self) is not self
        self._took += time.perf_counter() - began
        if self._took > CALL_S:
            raise EngineError("timeout", f"The call took more than {CALL_S:g} s.")
        return more

    def _explain(self, error: Trap | WasmtimeError) -> None:
        if fiber.out_of_fuel(error):
            self.over = True
            self.meter.overrun()
        elif "Cannot allocate memory" in str(error):  # the system's own words: no fault of the agent
            raise EngineError("resource_exhausted", "There is no memory for another instance.") from None
        else:
            raise EngineError("agent_error", f"The agent crashed: {fiber.why(error)}.") from None

    def burnt(self, context: Any) -> int:
        return self.fuel - fiber.fuel_left(context)

    def _settle(self, context: Any) -> None:
        self.meter.fuel(self.burnt(context))

    def _charge(self, context: Any, tokens: int) -> None:
        """A model has worked: others may have been waiting meanwhile."""
        self._settle(context)
        self.meter.model(tokens)
        self._worked = True
        fiber.stop_after(context, 1)
        self._stop_if_over()

    def _charge_stream(self, context: Any, stream: TextStream) -> None:
        tokens, stream.tokens = stream.tokens, 0
        self._charge(context, tokens)

    def _stop_if_over(self) -> None:
        if self.meter.room < 0:
            raise Halt
