"""What the coordinator decides: values in, values out. No clock, randomness, IO or async below here."""
