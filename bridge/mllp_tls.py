"""TLS of the MLLP listener (HL7 names it MLLP over TLS; IHE ATNA asks for node authentication by certificates)."""

from __future__ import annotations

import ssl

from bridge.errors import SettingsError
from bridge.settings import Settings


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Return the listener's TLS context, None when it speaks plain MLLP.

    TLS 1.2 or newer. With ``mllp.tls_client_ca`` a sender without a certificate of one of these authorities does not
    get past the handshake. Raises ``SettingsError`` for files that are no certificate or do not belong together.
    """
    mllp = settings.mllp
    if not mllp.tls_certificate:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.path(mllp.tls_certificate), settings.path(mllp.tls_key))
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(
            "mllp.tls_certificate and mllp.tls_key are not a certificate and its key in PEM / MLLP 证书与私钥不匹配"
        ) from error
    if mllp.tls_client_ca:
        try:
            context.load_verify_locations(settings.path(mllp.tls_client_ca))
        except (ssl.SSLError, OSError) as error:
            raise SettingsError("mllp.tls_client_ca holds no certificate in PEM / MLLP 客户端 CA 无法读取") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context
