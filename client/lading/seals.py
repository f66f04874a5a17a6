"""Sealed bids and what opens them, on disk before the chain sees the seal: without its salt a deposit is lost.

One JSON file, its owner's only, replaced in one step. Knows no auction: an entry names its auction and its bid in words
that the command which wrote it reads again.
"""

import os
import secrets
from pathlib import Path

import msgspec

from lading.errors import BadSettings
from lading.lock import FolderLock


class Seal(msgspec.Struct, frozen=True):
    """`kind` is share or promotion; `bid` is basis points or wei as text; ids, addresses and salt are 0x-hex."""

    kind: str
    chain_id: int
    contract: str
    auction: str
    bidder: str
    bid: str
    salt: str
    agent: str = ""
    state: str = "sealed"


class Seals:
    """`path` is made when the first bid is sealed."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def all(self) -> tuple[Seal, ...]:
        """Raises BadSettings when the file does not read: it is never overwritten then."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=tuple[Seal, ...])
        except FileNotFoundError:
            return ()
        except (OSError, msgspec.MsgspecError) as error:
            raise BadSettings(
                f"The sealed bids in {self._path} do not read: {error}.", hint="Restore the file: it opens your bids."
            ) from error

    def find(self, kind: str, contract: str, auction: str, bidder: str) -> Seal | None:
        for seal in self.all():
            if (seal.kind, seal.contract, seal.auction, seal.bidder) == (kind, contract, auction, bidder):
                return seal
        return None

    def put(self, seal: Seal) -> None:
        """Adds the bid, or replaces what was kept of the same one. On disk when it returns."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = FolderLock(self._path.with_suffix(".lock"))
        try:
            mine = (seal.kind, seal.contract, seal.auction, seal.bidder)
            kept = [one for one in self.all() if (one.kind, one.contract, one.auction, one.bidder) != mine]
            draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode([*kept, seal]), indent=1))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        finally:
            lock.release()


def new_salt() -> bytes:
    return secrets.token_bytes(32)
