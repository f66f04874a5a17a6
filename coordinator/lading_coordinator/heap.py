"""How often Python looks for cycles, for a program that holds 100,000 offers and makes thousands of objects a request.

With the interpreter's own thresholds each look at everything stops all streams for half a second.
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
