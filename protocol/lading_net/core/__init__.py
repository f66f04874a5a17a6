"""What the network decides about peers, as values: no clock, no socket, no randomness in here."""
