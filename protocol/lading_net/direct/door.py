"""The door: sockets that listen, and who calls at them.

A caller is judged by where it calls from before anything is made for it, and after one that was refused the next is let
wait a little, so that a crowd outside costs those inside little. Does not know why anybody is refused.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from struct import pack

_log = logging.getLogger(__name__)
_BACKLOG = 512
_REST = 0.002  # seconds between callers after one was refused: who is served meanwhile waits for one, not for a crowd
_WARY = 50  # such rests without a caller, until the next is let in at once
_PAUSE = 0.2  # seconds without new callers, when the system has no room for one
_RESET = pack("ii", 1, 0)  # SO_LINGER: a reset instead of an end in good order, and nothing is kept of the connection


class Door:
    """Asks `admit` for each caller's host, and connects it to the protocol that comes back, or resets it."""

    def __init__(self, sockets: list[socket.socket], admit: Callable[[str], asyncio.BaseProtocol | None]) -> None:
        self._sockets, self._admit = sockets, admit
        self._entering: set[asyncio.Task[None]] = set()
        loop = asyncio.get_running_loop()
        self._listening = [loop.create_task(self._listen(each)) for each in sockets]

    @property
    def port(self) -> int:
        return int(self._sockets[0].getsockname()[1])

    def close(self) -> None:
        for task in self._listening:
            task.cancel()

    async def wait_closed(self) -> None:
        await asyncio.gather(*self._listening, *self._entering, return_exceptions=True)
        for each in self._sockets:
            each.close()

    async def _listen(self, listening: socket.socket) -> None:
        wary = 0
        while True:
            try:
                if wary:
                    await asyncio.sleep(_REST)
                caller, address = listening.accept()
                if not self._receive(caller, address[0]):
                    wary = _WARY
                elif not wary:
                    await asyncio.sleep(0)  # others on this loop have their turn between two callers
            except BlockingIOError:
                if wary:
                    wary -= 1
                else:
                    await _called(listening)  # the loop's sock_accept loses a caller who comes as it is cancelled
            except ConnectionError:  # a caller has gone again
                pass
            except OSError as error:
                _log.warning("nobody can be let in at the moment: %s", error)
                await asyncio.sleep(_PAUSE)
            except Exception:  # whatever it was about this caller, the next ones are heard
                _log.exception("a caller could not be received")
                await asyncio.sleep(_PAUSE)

    def _receive(self, caller: socket.socket, host: str) -> bool:
        """Whether it may come in."""
        try:
            protocol = self._admit(host)
        except BaseException:
            caller.close()
            raise
        if protocol is None:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            caller.close()
            return False
        task = asyncio.get_running_loop().create_task(self._enter(caller, protocol))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)
        return True

    async def _enter(self, caller: socket.socket, protocol: asyncio.BaseProtocol) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, caller)
        except OSError as error:
            _log.debug("a caller was lost at the door: %s", error)
            caller.close()
            protocol.connection_lost(error)  # else it would keep the place that it was given


async def _called(listening: socket.socket) -> None:
    loop, called = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(listening, called.set)
    try:
        await called.wait()
    finally:
        loop.remove_reader(listening)


async def listening_sockets(host: str, port: int, family: int) -> list[socket.socket]:
    """One for each address of the host, bound as the event loop binds them. Raises OSError."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(asyncio.Protocol, host, port, family=family, start_serving=False)
    made = []
    for one in server.sockets:  # uvloop's are no sockets to accept with
        made.append(socket.socket(fileno=os.dup(one.fileno())) if os.name == "posix" else one.dup())
        made[-1].setblocking(False)
        made[-1].listen(_BACKLOG)
    server.close()
    return made
