"""The coordinator: an OpenAI-compatible gateway, an index of offers, a job ledger and the audits, for whoever runs one.

There may be many, and none is needed: nothing here holds a consumer's deposit or decides what a contract decides.
"""
