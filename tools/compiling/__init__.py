"""Compiles the modules that every request runs through into machine code, with mypyc. Never needed: see decision 0031.

The Python sources stay the one truth. What is built lies in a folder of its own, beside a copy of all sources, and is
used by whoever puts that folder first on Python's path.
"""
