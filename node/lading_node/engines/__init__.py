"""Engines: whatever turns a request into tokens or vectors, each in a process of its own behind one port.

They know no money, no peers and no network; see port.py for what they promise.
"""
