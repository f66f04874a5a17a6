"""What is indexed here, what others have told, and what all of it takes: a plain tree for pages and programs."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lading.core.atlas import Atlas, Voice
from lading.dispatch import Directory
from lading_coordinator.regions.hearing import Hearing
from lading_coordinator.regions.telling import Telling
from lading_protocol.ids import to_hex


class RegionView:
    """`regions` are those that are indexed in full; none: all."""

    def __init__(
        self, regions: Sequence[str], directory: Directory, atlas: Atlas, hearing: Hearing, telling: Telling
    ) -> None:
        self._regions = tuple(regions)
        self._directory = directory
        self._atlas = atlas
        self._hearing = hearing
        self._telling = telling

    @property
    def summed_up(self) -> int:
        """Stocks that other coordinators say they have."""
        return self._atlas.size

    def tree(self) -> dict[str, Any]:
        directory, atlas, scout = self._directory, self._atlas, self._hearing.scout
        return {
            "indexed": list(self._regions) or "all",
            "hosts": directory.linked,
            "offers": directory.size,
            "quoted_hosts": directory.quoted,
            "summed_up": atlas.size,
            "questions": scout.asked,
            "quotes": scout.brought,
            "summaries_sent": self._telling.published,
            "summary_bytes_sent": self._telling.bytes,
            "memory_mb": round(memory() / 1e6, 1),
            "coordinators": [_voice(voice) for voice in atlas.voices()],
        }


def _voice(voice: Voice) -> dict[str, Any]:
    return {
        "coordinator": to_hex(voice.address),
        "endpoints": list(voice.endpoints),
        "stocks": voice.shelves,
        "proved": voice.proved,
    }


def memory() -> int:
    """Bytes of this process that are in memory; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
