"""The engine's process: `python -I -m lading_node.engines.runner PARENT_PID`, driven over its stdin and stdout.

Inside the wall the parent cannot be seen and is 0. It trusts its parent and nothing else, and ends when its parent
does. It confines itself before it imports anything that starts threads or reads a stranger's file.
"""

import os
import sys
import time
from pathlib import Path

from lading_node.engines import wire
from lading_node.engines.confine import confine, die_with, take_stdio
from lading_node.engines.errors import EngineError
from lading_node.engines.outbox import Outbox
from lading_node.engines.port import Ready
from lading_protocol.framing import Frames


def first_message(reading: int) -> wire.Load:
    frames = Frames()
    while data := os.read(reading, 1 << 18):
        for payload in frames.feed(data):
            message = wire.to_engine.decode(payload)
            if not isinstance(message, wire.Load) or frames.pending:
                raise EngineError("engine_error", "The first message must be the only one until the engine is ready.")
            return message
    sys.exit(0)


def main() -> int:
    parent = int(sys.argv[1])
    die_with(parent)
    reading, writing = take_stdio()
    message = first_message(reading)
    spec = message.spec
    outbox = Outbox(writing)
    began = time.perf_counter()
    held = confine(message.bounds, parent)

    from lading_node.engines.generation import as_failed
    from lading_node.engines.load import load
    from lading_node.engines.serving import Runner

    try:
        loaded = load(spec, Path(message.bounds.scratch))
    except (EngineError, MemoryError) as error:
        outbox.put([as_failed("", error)])
        outbox.flush()
        return 1
    took = round((time.perf_counter() - began) * 1000)
    outbox.put([Ready(loaded.engine, loaded.version, held, os.getpid(), took, loaded.vocab, loaded.width)])
    Runner(loaded, spec.slots, message.join_s, reading, outbox).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
