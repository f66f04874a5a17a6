"""Lading's door to the chain: one port, its adapters, one typed class per contract, and a fake chain for simulations.

Knows no job, host or gateway: it moves calls, transactions and events. Importing this package imports no heavy library.
"""
