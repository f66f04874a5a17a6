"""The two ways a client reaches models."""
