"""The certificate that the WebSocket listener shows, if it is not a proxy in front that ends TLS."""

import ssl
from pathlib import Path

from signald.config import ConfigError, ListenConfig, Problem


def tls_context(listen: ListenConfig) -> ssl.SSLContext | None:
    """Return what serves TLS as configured; None without a certificate.

    Raises ConfigError when certificate and key cannot be used together.
    """
    if not listen.tls_certificate_file:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    for key in ("tls_certificate_file", "tls_key_file"):
        try:
            Path(getattr(listen, key)).read_bytes()
        except OSError as error:
            raise ConfigError([_problem(key, f"cannot be read: {error.strerror}")]) from None
    try:
        # A passphrase cannot be asked for: no operator reads the terminal of a daemon.
        context.load_cert_chain(listen.tls_certificate_file, listen.tls_key_file, password=lambda: "")
    except (ssl.SSLError, ValueError) as error:
        why = str(getattr(error, "reason", None) or error).replace("_", " ").lower()
        message = f"{listen.tls_certificate_file} and {listen.tls_key_file} are no PEM certificate with its key: {why}"
        raise ConfigError([_problem("tls_certificate_file", message)]) from None
    return context


def _problem(key: str, message: str) -> Problem:
    return Problem("", f"listen.{key}", message)
