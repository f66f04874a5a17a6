"""The verbs of agent packages that other parts use; what they do is in lading.packages."""

from lading.packages.fetch import Progress, fetch_package
from lading.packages.locks import Hold
from lading.packages.serve import ServeLimits, serve_blobs
from lading.packages.store import BlobStore

__all__ = ["BlobStore", "Hold", "Progress", "ServeLimits", "fetch_package", "serve_blobs"]
