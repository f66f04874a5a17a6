"""Decisions of the paying side. Pure: no clock, randomness, IO or async."""
