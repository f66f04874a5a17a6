"""What each contract owes to whom, folded from its events: a small ledger each. `lading_contracts.books` joins them.

Pure: an event in, changed entries out. What a change replaced is kept in a journal, so that it can be taken back.
"""
