"""Chat templates in the transformers style (Jinja), run as what they are: a stranger's program.

Sandboxed, without loaders, with bounded strings, ranges and output, and under a deadline that only the main thread of
the engine's process can keep (a signal), because two nested loops would otherwise run for hours.
"""

import gc
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from jinja2 import Template
from jinja2.exceptions import TemplateError
from jinja2.meta import find_undeclared_variables

from lading_node.core.tools import OPEN
from lading_node.engines.errors import EngineError, one_line
from lading_node.engines.template_sandbox import MAX_TEXT, Sandbox
from lading_protocol.messages import Message

MAX_TEMPLATE = 1 << 17
DEADLINE_S, AGAIN_S = 0.5, 0.1
MAX_RECURSION = 1000

_TEMPLATE_ERRORS = (TemplateError, ArithmeticError, TypeError, ValueError, LookupError, RecursionError, MemoryError)


class _TemplateRefused(Exception):
    """The template itself says that it cannot render these messages."""


class _Overtime(Exception):
    """The deadline passed."""


def _refuse(message: str) -> None:
    raise _TemplateRefused(one_line(message))


@contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    """A deadline, and a depth at which recursion ends in an error before it ends in a crash.

    In processor time: on a busy machine an honest template waits, and that is no fault of the package. Nor is what the
    collector takes, which rests meanwhile. It strikes until it is heard: Python drops what is raised in a __del__.
    """

    def expire(signum: int, frame: FrameType | None) -> None:
        raise _Overtime

    depth, collecting = sys.getrecursionlimit(), gc.isenabled()
    gc.disable()
    sys.setrecursionlimit(min(depth, MAX_RECURSION))
    before = signal.signal(signal.SIGPROF, expire)
    signal.setitimer(signal.ITIMER_PROF, seconds, AGAIN_S)
    try:
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)  # where it struck once more before the line above
        signal.signal(signal.SIGPROF, before)
        sys.setrecursionlimit(depth)
        if collecting:
            gc.enable()


class ChatTemplate:
    """From messages to the text of a prompt; every call raises EngineError, and must be made in the main thread.

    `takes_tools` says that it has a place for tools and shows the model to write calls as JSON in <tool_call>.
    """

    def __init__(self, template: Template, takes_tools: bool, bos: str, eos: str) -> None:
        self._template = template
        self._named = {"add_generation_prompt": True, "bos_token": bos, "eos_token": eos}
        self.takes_tools = takes_tools

    def __call__(self, messages: Sequence[Message]) -> str:
        return self.render([{"role": message.role, "content": message.content} for message in messages])

    def render(self, turns: Sequence[dict[str, Any]], tools: Sequence[dict[str, Any]] = ()) -> str:
        given = {"messages": list(turns), **self._named} | ({"tools": list(tools)} if tools else {})
        parts, size = [], 0
        try:
            with _bounded(DEADLINE_S):
                for part in self._template.generate(**given):
                    parts.append(part)
                    size += len(part)
                    if size > MAX_TEXT:
                        raise EngineError("agent_error", f"The chat template writes more than {MAX_TEXT} characters.")
        except _TemplateRefused as error:
            raise EngineError("invalid_request", f"The agent refuses these messages: {error}.") from error
        except _Overtime as error:
            raise EngineError("agent_error", f"The chat template ran for more than {DEADLINE_S} s.") from error
        except _TEMPLATE_ERRORS as error:
            raise EngineError("agent_error", f"The chat template fails: {one_line(error)}") from error
        return "".join(parts)


def compile_template(source: str, bos: str = "", eos: str = "") -> ChatTemplate:
    """Raises EngineError; must run in the main thread."""
    if len(source) > MAX_TEMPLATE:
        raise EngineError("invalid_package", f"The chat template is longer than {MAX_TEMPLATE} characters.")
    environment = Sandbox(raise_exception=_refuse)
    try:
        with _bounded(DEADLINE_S):
            tree = environment.parse(source)
            takes_tools = OPEN in source and "tools" in find_undeclared_variables(tree)
            template = environment.from_string(tree)
    except (TemplateError, _Overtime, RecursionError, MemoryError) as error:
        raise EngineError("invalid_package", f"The chat template does not compile: {one_line(error)}") from error
    return ChatTemplate(template, takes_tools, bos, eos)
