"""Masks against frozen vectors: another implementation of section 6.1 of the protocol can be held to them too."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lading_node.core.mask import Masks
from lading_node.core.vocabulary import Vocabulary

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors" / "grammar.json").read_text())


@pytest.mark.parametrize("case", VECTORS["answers"])
def test_frozen_masks(case: dict[str, Any]) -> None:
    """Each step lists the ids that may come next, and the one that came."""
    pieces = [bytes.fromhex(piece) for piece in VECTORS["pieces"]]
    guide = Masks(Vocabulary(len(pieces), pieces, VECTORS["ends"])).guide(case["schema"].encode())
    for allowed, token in case["steps"]:
        assert np.flatnonzero(guide.mask()).tolist() == allowed
        guide.advance(token)
