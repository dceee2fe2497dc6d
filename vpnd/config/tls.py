"""The certificate and key of `[api]`: whether TLS can be served with them."""

from __future__ import annotations

import ssl
import stat
from datetime import UTC, datetime
from pathlib import Path

from vpnd.config.configuration import Configuration, Findings
from vpnd.config.secrets import unreadable_by_service

NAME_A_PAIR = "name the PEM files of one pair: the certificate with its chain, and its key without a password"


class TlsUnusable(Exception):
    """TLS cannot be served so. `key` is the key of `[api]` that is wrong, `hint` what to change."""

    def __init__(self, key: str, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.key = key
        self.code = code
        self.hint = hint


def check(configuration: Configuration, findings: Findings) -> None:
    """Report what keeps `[api]` from serving, now or soon."""
    api, source = configuration.api, configuration.api_source
    if api is None or source is None:
        return
    certificate, key = (source.beside(path) for path in (api.certificate, api.key))
    try:
        server_context(certificate, key)
        ends = _end(certificate)
    except TlsUnusable as error:
        findings.error(source, ("api", error.key), error.code, str(error), error.hint)
        return
    if ends < datetime.now(UTC):
        message = f"the certificate {certificate} ended on {ends:%Y-%m-%d}: clients refuse it"
        findings.warn(source, ("api", "certificate"), "W-TLS-EXPIRED", message, "renew it, then reload")
    suspicion = unreadable_by_service(f"file:{key}", None)
    if suspicion is not None and not key.stat().st_mode & stat.S_IRGRP:
        findings.warn(source, ("api", "key"), "W-TLS-OWNER", suspicion.message, suspicion.hint)
    metrics = configuration.metrics
    if metrics is not None and metrics.listen == api.listen:
        message = f"{api.listen} is the port of [metrics] already"
        findings.error(source, ("api", "listen"), "E-DUPLICATE", message, "give each its own port")


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer, as a server, without renegotiation (RFC 9325). Raises TlsUnusable."""
    for name, path in (("certificate", certificate), ("key", key)):
        try:
            mode = path.stat().st_mode
            with path.open("rb"):
                pass
        except OSError as error:
            message = f"the file {path} cannot be read: {error.strerror}"
            raise TlsUnusable(name, "E-TLS-FILE", message, "check the path and its owner") from None
        if name == "key" and mode & stat.S_IRWXO:
            message = f"the key {path} has mode {stat.S_IMODE(mode):04o}: anyone can read it"
            raise TlsUnusable(name, "E-TLS-MODE", message, f"chmod o= {path}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    try:
        # An empty password, so that OpenSSL does not ask for one at the terminal.
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or "they are no PEM files of one pair"
        message = f"{certificate} and {key} cannot be used: {str(reason).replace('_', ' ').lower()}"
        raise TlsUnusable("certificate", "E-TLS-PAIR", message, NAME_A_PAIR) from None
    return context


def _end(certificate: Path) -> datetime:
    """When the first certificate of the file ends. Raises TlsUnusable."""
    from cryptography import x509  # it takes as long to import as all the rest, and few have this table

    try:
        return x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        message = f"the certificate {certificate} cannot be read as X.509"
        raise TlsUnusable("certificate", "E-TLS-PAIR", message, NAME_A_PAIR) from None
