"""Lading for the consumer: call any agent on the network and pay by the token."""

__version__ = "0.1.0"
