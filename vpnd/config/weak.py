"""Warnings for choices that work and should not be made, each with the RFC that says so."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from vpnd.config.configuration import Configuration, Findings, Tunnel
from vpnd.config.places import Path as KeyPath
from vpnd.config.problems import Problem
from vpnd.crypto.suites import ENCRYPTIONS, GROUPS, INTEGRITIES

BETTER = {
    "encryption": "aes-128 or aes-256, with the peer set to the same",
    "integrity": "sha256, with the peer set to the same",
    "dh_group": "14, 19 or 31, with the peer set to the same",
    "pfs": "14, 19 or 31, with the peer set to the same",
}


def check(configuration: Configuration, findings: Findings) -> None:
    """One warning for each weak choice of each tunnel."""
    for tunnel in configuration.tunnels.values():
        findings.add(tunnel.source.once(("weak", tunnel.name), (tunnel.table,), partial(_of_one, tunnel)))


def _of_one(tunnel: Tunnel) -> tuple[Problem, ...]:
    findings = Findings()
    _algorithms(tunnel, findings)
    _aggressive_mode(tunnel, findings)
    _private_numbers(tunnel, findings)
    return tuple(findings)


def _algorithms(tunnel: Tunnel, findings: Findings) -> None:
    ike, ipsec = tunnel.table.ike, tunnel.table.ipsec
    for section, encryption, integrity, group_key, groups in (
        ("ike", ike.encryption, ike.integrity, "dh_group", ike.dh_group),
        ("ipsec", ipsec.encryption, ipsec.integrity, "pfs", ipsec.pfs),
    ):
        for index, word in enumerate(encryption):
            _weak(tunnel, (section, "encryption", index), word, ENCRYPTIONS[word].warning, findings)
        if section == "ike" or not all(ENCRYPTIONS[word].aead for word in encryption):
            for index, word in enumerate(integrity):
                _weak(tunnel, (section, "integrity", index), word, INTEGRITIES[word].warning, findings)
        for index, group in enumerate(groups):
            _weak(tunnel, (section, group_key, index), f"DH group {group}", GROUPS[group].warning, findings)


def _weak(
    tunnel: Tunnel, key: tuple[str, str, int], word: str, warning: str | None, findings: Findings
) -> None:
    if warning is None:
        return
    path, note = _where(tunnel, key[:2])
    if not note:
        path = (*tunnel.path, *key)
    message = f"{key[0]}.{key[1]} {word}{note}: {warning}"
    findings.warn(tunnel.source, path, "W-WEAK", message, f"better: {BETTER[key[1]]}")


def _where(tunnel: Tunnel, key: tuple[str, str]) -> tuple[KeyPath, str]:
    """The path of a value, or of the `profile` that it is a default of, and a note that says so."""
    section = tunnel.written.get(key[0])
    if isinstance(section, Mapping) and key[1] in section:
        return (*tunnel.path, *key), ""
    return (*tunnel.path, "profile"), f" (a default of profile {tunnel.table.profile})"


def _aggressive_mode(tunnel: Tunnel, findings: Findings) -> None:
    ike = tunnel.table.ike
    if ike.version != "ikev1" or ike.negotiation_mode != "aggressive":
        return
    message = (
        "aggressive mode: who listens, or just asks, learns the identities in clear and a hash of the key,"
        " against which keys can be tried offline (RFC 2409 section 5.4; RFC 9395 deprecates IKEv1)"
    )
    hint = "use main mode or IKEv2; if it must be, a key of `vpnctl psk generate` cannot be guessed"
    findings.warn(tunnel.source, (*tunnel.path, "ike", "negotiation_mode"), "W-AGGRESSIVE", message, hint)


def _private_numbers(tunnel: Tunnel, findings: Findings) -> None:
    """SM4 and SM3 have no numbers in the IKEv2 registries."""
    if tunnel.table.ike.version != "ikev2":
        return
    for section, words in (
        ("ike", (tunnel.table.ike.encryption, tunnel.table.ike.integrity)),
        ("ipsec", (tunnel.table.ipsec.encryption, tunnel.table.ipsec.integrity)),
    ):
        for key, chosen in zip(("encryption", "integrity"), words, strict=True):
            for index, word in enumerate(chosen):
                if word in ("sm4", "sm3"):
                    message = (
                        f"{section}.{key} {word}: IKEv2 has no number for it, so one for private use is sent"
                        " (RFC 7296 section 3.3.2); only a peer with the same number understands it"
                    )
                    hint = "set the peer's in sm_numbers; IKEv1 has those of GM/T 0022"
                    findings.warn(tunnel.source, (*tunnel.path, section, key, index), "W-SM", message, hint)
