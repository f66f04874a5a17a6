"""The Lading protocol: ids, messages, signed structs, pricing and the job state machine.

Pure: values in, values out. Knows no clock, randomness, socket, file or event loop.
"""

VERSION = 1
OLDEST = max(1, VERSION - 1)
