"""The one error of the vendor files: why a vendor's devices cannot be read, as a person would say it."""


class NotThere(Exception):
    """Part of a sentence after the vendor's name: "no driver (libnvidia-ml.so is missing)"."""
