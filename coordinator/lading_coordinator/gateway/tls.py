"""TLS for the gateway: a certificate and its key become what the listening socket needs. Knows no connection."""

import ssl
from pathlib import Path

from lading_coordinator.errors import BadSettings

_HINT = "Name a PEM file with the whole chain in coordinator.tls_cert, and its key in coordinator.tls_key."


def server_context(cert: str, key: str) -> ssl.SSLContext | None:
    """None where no certificate is named. Raises BadSettings.

    Clients that come back resume with a session ticket, which spares both the signatures of a handshake.
    """
    if not cert and not key:
        return None
    if not cert or not key:
        raise BadSettings("Only one of coordinator.tls_cert and coordinator.tls_key is set.", hint=_HINT)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(Path(cert).expanduser(), Path(key).expanduser())
    except (OSError, ssl.SSLError) as error:
        raise BadSettings(f"The certificate {cert} with the key {key} cannot be used: {error}.", hint=_HINT) from error
    return context
