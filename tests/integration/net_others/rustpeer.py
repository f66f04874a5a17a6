"""A program around rust-libp2p, as lattica has it: what it is to do comes in as lines of JSON, answers go out.

    python rustpeer.py FOLDER_OF_THE_MODULE < orders

The first line configures it. Answers go to standard error, each after a mark, as its log goes to standard output.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

MARK = "rustpeer "
_ABOUT = ("protocols", "addresses", "protocol_version")


class Echo:
    """A service, by the names that lattica looks for."""

    _rpc_methods = ("say",)

    def _handle_say(self, data: Any) -> bytes:
        return bytes(data)


def answer(peer: Any, order: str, given: list[Any]) -> Any:
    if order == "say":  # so many bytes to that peer, and back
        data = os.urandom(given[1])
        return bytes(peer.get_client(given[0]).call("Echo.say", data).result(20)) == data
    if order == "info":
        info = peer.get_peer_info(given[0])
        return info and {each: getattr(info, each) for each in _ABOUT}
    return getattr(peer, order)(*given)


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    from lattica_python_core import LatticaSDK  # type: ignore[import-not-found]

    peer = LatticaSDK(json.loads(sys.stdin.readline()))
    peer.register_service(Echo())
    print(MARK + json.dumps({"result": peer.peer_id()}), file=sys.stderr, flush=True)
    for line in sys.stdin:
        order, *given = json.loads(line)
        try:
            told = {"result": answer(peer, order, given)}
        except Exception as error:
            told = {"error": str(error)}
        print(MARK + json.dumps(told), file=sys.stderr, flush=True)
    os._exit(0)  # its threads do not end by themselves


if __name__ == "__main__":
    main()
