"""The chain in memory, on a virtual clock, for simulations: the same port, the same ABI, the same refusals.

A property test runs random operations here and on the real contracts, and wants the same balances and errors.
"""

from lading_contracts.fake.chain import FakeChain

__all__ = ["FakeChain"]
