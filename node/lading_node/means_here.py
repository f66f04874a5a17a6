"""What this machine can run an agent with when nobody has set up a node on it: for trying agents out.

Asks the container engine what it is; the self-test of the tiers is the node's business and is not run.
"""

import os
from contextlib import closing

from lading_node.engines.errors import EngineError
from lading_node.engines.factory import Means, has_card
from lading_node.engines.port import Tier

DOCKER = "LADING_NODE_DOCKER"
USUAL = "unix:///var/run/docker.sock"


def means_here() -> Means:
    """With a container engine when the one that the environment names, or the usual one, answers. Blocks.

    The tiers are those that can be tried here at all, not those that passed a self-test.
    """
    url = os.environ.get(DOCKER) or USUAL
    try:
        from lading_node.engines.dock import Dock

        with closing(Dock(url)) as dock:
            runtimes = dock.about().get("Runtimes") or {}
    except (ImportError, EngineError):
        return Means(card=has_card())
    tiers: tuple[Tier, ...] = ("W", "P", "C", "G") if "runsc" in runtimes else ("W", "P", "C")
    return Means(tiers=tiers, docker=url, card=has_card())
