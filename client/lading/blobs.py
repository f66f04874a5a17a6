"""The verbs of agent packages that other parts use; what they do is in lading.packages."""

from lading.packages.artifact import export_artifact
from lading.packages.delta import delta_entry
from lading.packages.fetch import Progress, fetch_package
from lading.packages.locks import Hold
from lading.packages.serve import ServeLimits, serve_blobs
from lading.packages.shelf import Stored
from lading.packages.store import BlobStore
from lading.packages.unload import artifact_signatures, import_artifact

__all__ = [
    "BlobStore",
    "Hold",
    "Progress",
    "ServeLimits",
    "Stored",
    "artifact_signatures",
    "delta_entry",
    "export_artifact",
    "fetch_package",
    "import_artifact",
    "serve_blobs",
]
