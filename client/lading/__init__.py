"""Lading for the consumer: call any agent on the network and pay by the token."""

from lading.client import Client
from lading.core.options import Options

__all__ = ["Client", "Options"]

__version__ = "0.1.0"
