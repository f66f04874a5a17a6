"""The paying side at work: an index of offers, a purse of vouchers, and the dispatcher that carries a job to its end.

The coordinator's gateway and the in-process client run this same code.
"""

from lading.dispatch.directory import Directory
from lading.dispatch.dispatcher import Dispatcher
from lading.dispatch.events import Ask, Ended, Listener, Moved, Part, Payer, Piece, Rows, Started
from lading.dispatch.purse import Purse

__all__ = [
    "Ask",
    "Directory",
    "Dispatcher",
    "Ended",
    "Listener",
    "Moved",
    "Part",
    "Payer",
    "Piece",
    "Purse",
    "Rows",
    "Started",
]
