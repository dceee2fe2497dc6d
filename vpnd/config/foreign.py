"""A key file that holds a line of another program's configuration: which, and what to write instead.

vpnd takes the whole content for the key, so such a tunnel never comes up, and nobody sees why. No message
of this file shows a key, or a part of one.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from vpnd.config.secrets import SecretError
from vpnd.model.secret import Secret

_LINES = (
    # `: PSK "..."`, `192.0.2.1 @gw.example : PSK 0x...`, `a b: PSK 0s...` (strongSwan, libreswan)
    (re.compile(rb"(?im)^[^\n#]*:[ \t]*PSK[ \t]+(\S[^\n]*)$"), "a line of ipsec.secrets"),
    # `secret = "..."` (swanctl.conf), `pre_shared_key = "..."` (ours), `psk = ...`
    (
        re.compile(rb"(?im)^[ \t]*(?:secret|psk|pre[-_]?shared[-_]?key)[ \t]*=[ \t]*(\S[^\n]*)$"),
        "a setting of a configuration, such as swanctl.conf",
    ),
    # `PSK "..."`, `psk "..."` (iked.conf), `pre-shared-key ...` (routers)
    (
        re.compile(rb"(?im)^[ \t]*(?:psk|pre[-_]?shared[-_]?key)[ \t]+(\S[^\n]*)$"),
        "a line of a configuration, with the word PSK before the key",
    ),
)
_ADDRESS_AND_KEY = re.compile(rb"(?m)^(\S+)[ \t]+(\S[^\n]*)$")


def foreign_line(secret: Secret) -> SecretError | None:
    """The error that names what the key really is, or None if it may be a key."""
    key = secret.reveal()
    for pattern, what in _LINES:
        match = pattern.search(key)
        if match is not None:
            return _error(what, match[1])
    match = _ADDRESS_AND_KEY.match(key)
    if match is not None and _is_address(match[1]):
        return _error("a line of racoon's psk.txt, an address with its key", match[2])
    return None


def _error(what: str, value: bytes) -> SecretError:
    return SecretError("E-PSK-LINE", f"the key is {what}, not the key alone", _instead(value))


def _instead(value: bytes) -> str:
    """What belongs into the file; the line end that `echo` adds is taken off again."""
    if value[:1] in b"\"'":
        return "write only what stands between the quotes, without them"
    if value[:2].lower() == b"0x":
        return "0x means hex: write the bytes that it stands for: (echo HEX | xxd -r -p; echo) > FILE"
    if value[:2].lower() == b"0s":
        return "0s means base64: write the bytes that it stands for: (echo BASE64 | base64 -d; echo) > FILE"
    return "write only the key itself, without the words before it"


def _is_address(text: bytes) -> bool:
    try:
        ip_address(text.decode("ascii", "replace"))
    except ValueError:
        return False
    return True
