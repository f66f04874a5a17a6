"""The embedded chain: py-evm over SQLite behind JSON-RPC. Needs only pip; survives kill -9; one process per folder.

Importing this package imports no py-evm; `server.EmbeddedChain.start` does.
"""
