"""What this machine can compute on: one small file a vendor, each run in a killable child, and an honest score.

`devices` is pure. Only `discover` and `score` start processes, and nothing here is imported by an engine.
"""
