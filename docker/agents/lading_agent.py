"""What an agent in a container needs to speak with its host: ABI 1 in one file, standard library only.

    from lading_agent import Agent

    agent = Agent("shout")

    @agent.operation
    def shout(input, call):
        return {"text": input["text"].upper()}

    @agent.operation
    def tell(input, call):                     # a generator streams its text
        for word in input["text"].split():
            yield word + " "

    agent.run()

An operation gets the input (what the JSON held) and its call. It returns a JSON value, or yields pieces of text. To
refuse a request, raise BadRequest with a sentence for whoever sent it. Several calls run at once, each in a thread;
`call.cancelled` tells a long one that nobody waits for it any more. Standard input and output belong to the host: what
a library prints goes to standard error, which the host keeps a little of.
"""

import json
import os
import sys
import threading
from collections import deque
from inspect import isgenerator

MAX_FRAME = 1 << 20
_SIZE = 4


class BadRequest(Exception):
    """The request cannot be served, by anyone; the text tells its sender why."""


class Call:
    """One request. `max_tokens` is what its sender pays for at most: three bytes of the answer each."""

    def __init__(self, id, operation, input, max_tokens):
        self.id = id
        self.operation = operation
        self.input = input
        self.max_tokens = max_tokens
        self.cancelled = False


class Agent:
    def __init__(self, name, threads=4):
        self.name = name
        self._operations = {}
        self._threads = threads
        self._calls = {}
        self._queue = deque()
        self._waiting = threading.Semaphore(0)
        self._writing = threading.Lock()
        self._reader, self._writer = _take_stdio()

    def operation(self, work, name=None):
        """Register `work` under its own name, with - for _. Use `agent.operation(work, "name")` for another."""
        self._operations[name or work.__name__.replace("_", "-")] = work
        return work

    def run(self):
        """Say that the agent is ready, then serve until the host goes away."""
        for _ in range(self._threads):
            threading.Thread(target=self._work, daemon=True).start()
        self._send({"ready": {"name": self.name, "operations": sorted(self._operations)}})
        while (message := self._receive()) is not None and "stop" not in message:
            if "cancel" in message:
                if (call := self._calls.get(message["cancel"])) is not None:
                    call.cancelled = True
            elif "call" in message:
                call = Call(message["call"], message["operation"], message["input"], message["max_tokens"])
                self._calls[call.id] = call
                self._queue.append(call)
                self._waiting.release()
        os._exit(0)

    def _work(self):
        while self._waiting.acquire():
            call = self._queue.popleft()
            try:
                last = self._answer(call)
            except BadRequest as error:
                last = {"fail": call.id, "code": "invalid_request", "message": str(error)}
            except Exception as error:
                print(f"{call.operation}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
                last = {"fail": call.id, "code": "agent_error", "message": f"The agent broke: {type(error).__name__}."}
            del self._calls[call.id]
            self._send(last)

    def _answer(self, call):
        work = self._operations.get(call.operation)
        if work is None:
            raise BadRequest(f"This agent does not {call.operation}.")
        output = None if call.cancelled else work(call.input, call)
        if isgenerator(output):
            for text in output:
                if call.cancelled:
                    output.close()
                    break
                for at in range(0, len(text), MAX_FRAME // 16):
                    self._send({"out": call.id, "text": text[at : at + MAX_FRAME // 16]})
            return {"done": call.id}
        return {"done": call.id, "output": output}

    def _send(self, message):
        data = json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        if len(data) > MAX_FRAME:
            last = {
                "fail": message.get("done"),
                "code": "agent_error",
                "message": "The answer is too large: stream it.",
            }
            data = json.dumps(last).encode()
        frame = len(data).to_bytes(_SIZE, "big") + data
        with self._writing:
            while frame:
                frame = frame[os.write(self._writer, frame) :]

    def _receive(self):
        size = self._read(_SIZE)
        data = self._read(int.from_bytes(size, "big")) if size else None
        return json.loads(data) if data else None

    def _read(self, size):
        """None when the host has gone."""
        data = b""
        while len(data) < size:
            part = os.read(self._reader, size - len(data))
            if not part:
                return None
            data += part
        return data


def _take_stdio():
    """The pipes to the host, moved away from 0 and 1: a library that reads meets nothing, one that prints, stderr."""
    reading, writing = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    sys.stdout.reconfigure(line_buffering=True)
    return reading, writing
