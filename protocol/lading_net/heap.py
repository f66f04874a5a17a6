"""How often Python looks for cycles, for a program that carries streams and holds up to 100,000 offers.

With the interpreter's own thresholds each look at everything stops all streams: for 40 ms in a program that was just
loaded, for half a second in a coordinator.
"""

import gc

# Objects made before the young are looked at, and looks after which the older ones are, and all.
YOUNG, OLDER, ALL = 20_000, 20, 100


def calm_collector() -> None:
    """Once, when the program is built: what is there then stays and need not be looked at. Cycles are found as before,
    only later; what is in none is freed at once as ever."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, OLDER, ALL)
