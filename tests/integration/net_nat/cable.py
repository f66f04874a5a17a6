"""A cable between two network devices on which every frame takes its time, in user space and in a thread of its own.

Reads and writes whole frames with the kernel's notes about them (PACKET_VNET_HDR), so that what the kernel left for
the network card to do, checksums and cutting into segments, is left to the next device.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import deque

_ETH_P_ALL = 0x0003
_SOL_PACKET, _PACKET_VNET_HDR = 263, 15
_OUTGOING = 4  # sll_pkttype of what the device itself sent
_LARGEST = 70_000


class Cable:
    """Made inside the namespace of both devices. `delay` is seconds, each way."""

    def __init__(self, one: str, other: str, delay: float) -> None:
        self._ends = (_end(one), _end(other))
        self._delay = delay
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"cable {one}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing = True
        self._thread.join()
        for end in self._ends:
            end.close()

    def _run(self) -> None:
        across = {self._ends[0]: self._ends[1], self._ends[1]: self._ends[0]}
        under_way: deque[tuple[float, socket.socket, bytes]] = deque()
        while not self._closing:
            patience = min(0.1, max(0.0, under_way[0][0] - time.monotonic())) if under_way else 0.1
            for end in select.select(self._ends, (), (), patience)[0]:
                frame, where = end.recvfrom(_LARGEST)
                if where[2] != _OUTGOING:
                    under_way.append((time.monotonic() + self._delay, across[end], frame))
            while under_way and under_way[0][0] <= time.monotonic():
                _, end, frame = under_way.popleft()
                try:
                    end.send(frame)
                except OSError:  # a cable may lose a frame; whoever sent it sends it again
                    continue


def _end(device: str) -> socket.socket:
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    end.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    end.bind((device, _ETH_P_ALL))
    return end
