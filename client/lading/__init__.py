"""Lading for the consumer: call any agent on the network and pay by the token."""

from typing import TYPE_CHECKING, Any

from lading.core.options import Options

if TYPE_CHECKING:
    from lading.client import Client

__all__ = ["Client", "Options"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """A coordinator shares the core of this package and needs neither the client nor what it imports."""
    if name == "Client":
        from lading.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
