"""Decisions of a host. Pure: no clock, randomness, IO or async."""
