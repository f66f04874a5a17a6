"""What each contract owes to whom, folded from its events: one small ledger a contract. `lading_contracts.books` joins them.

Pure: an event in, changed entries out. What a change replaced is kept in a journal, so that a reorganisation can be taken back.
"""
