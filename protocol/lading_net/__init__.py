"""The network: two ports, three implementations, one list of errors. Moves bytes and messages, decides nothing.

`direct` carries jobs, `gossip` finds peers and spreads adverts, `memory` is a whole network for simulations.
"""
