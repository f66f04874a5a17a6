"""The control plane: everything that is not on the path of tokens, as an ASGI application."""
