"""Pre-shared keys: where they come from, who may read them, and what is suspicious about them.

No message of this file shows a key, or a part of one.
"""

from __future__ import annotations

import os
import pwd
import secrets
import stat
import string
from dataclasses import dataclass
from pathlib import Path

from vpnd.config.stamps import Stamp, stamp_of
from vpnd.model.secret import Secret

MIN_KEY_CHARACTERS = 20
"""Ours: below this a key can be guessed offline (RFC 7296 section 2.15 asks for as much unpredictability as
the strongest key that is negotiated)."""

MAX_KEY_BYTES = 64 * 1024
"""Ours: a larger file is no key."""

KEYS = ("pre_shared_key", "next_pre_shared_key")
"""What of a tunnel's table says where a key is."""

FORMS = 'one of: "file:PATH", "credential:NAME" (systemd), "plain:TEXT"'


SERVICE_USER = "vpnd"
"""The user that systemd runs the daemon as; it exists where the service is installed."""

_NAME_IT = "name the file that holds the key"


def new_key() -> str:
    """43 letters and digits, 256 bits; the first is no zero, since some consoles refuse that."""
    letters = string.ascii_letters + string.digits
    return secrets.choice(letters.replace("0", "")) + "".join(secrets.choice(letters) for _ in range(42))


class SecretError(Exception):
    """A key that cannot be used: code, message, hint. Never the key."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


class CredentialUnavailable(SecretError):
    """A systemd credential, asked for outside the service."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Something about a key that is probably a mistake."""

    code: str
    message: str
    hint: str


def read_secret(
    reference: str, config_file: Path | None, private: bool, key: str = "pre_shared_key"
) -> Secret:
    """The key that `file:PATH`, `credential:NAME` or `plain:TEXT` stands for.

    `config_file` holds the reference: a relative PATH is relative to its directory. `private` says whether
    nobody but its owner can read that file, which `plain:` needs. `key` is what it is called in the table.
    Raises SecretError.
    """
    kind, colon, rest = reference.partition(":")
    if not colon or kind not in ("file", "credential", "plain"):
        raise SecretError("E-PSK-FORM", f"{key} does not say where the key is", FORMS)
    if kind == "plain":
        return _plain(rest, private)
    if not rest:
        raise SecretError("E-PSK-FORM", f"{key} names no {kind}", FORMS)
    if kind == "credential":
        return _strip(_read_private(_credential_path(rest)), f"the credential {rest}")
    path = _path_of(rest, config_file)
    return _strip(_read_private(path), str(path))


def stamp_of_key(reference: str, config_file: Path | None) -> Stamp | None:
    """That of the file that a reference names: while it is the same, so is the key. None: nothing tells."""
    kind, _, rest = reference.partition(":")
    if kind == "plain":
        return b""
    if kind != "file" or not rest:
        return None
    directory = os.path.dirname(config_file) if config_file is not None else ""
    try:
        status = os.stat(os.path.join(directory, rest))
    except (OSError, ValueError):
        return None
    # Whether the key of another user may be used changes with the machine's users.
    return stamp_of(status) if status.st_uid in (0, os.geteuid()) else None


def unreadable_by_service(reference: str, config_file: Path | None) -> Suspicion | None:
    """A key file that root can read, who checks, and the service's user, who runs the daemon, cannot."""
    kind, _, rest = reference.partition(":")
    service = _service_uid()
    if kind != "file" or service is None or os.geteuid() != 0:
        return None
    path = _path_of(rest, config_file)
    try:
        owner = path.stat().st_uid
    except OSError:
        return None
    if owner == service:
        return None
    message = f"the service runs as user {SERVICE_USER}, who cannot read the key file {path}"
    hint = f"chown {SERVICE_USER}: {path}; or LoadCredential= in the unit with credential:NAME here"
    return Suspicion("W-PSK-OWNER", message, hint)


def _service_uid() -> int | None:
    try:
        return pwd.getpwnam(SERVICE_USER).pw_uid
    except KeyError:
        return None


def _path_of(path: str, config_file: Path | None) -> Path:
    """A relative path is relative to the directory of the file that names it."""
    found = Path(path)
    return found if found.is_absolute() or config_file is None else config_file.parent / found


def only_owner_reads(status: os.stat_result) -> bool:
    """Whether neither group nor others have any right to the file."""
    return not status.st_mode & (stat.S_IRWXG | stat.S_IRWXO)


def is_text(text: str) -> bool:
    """Whether UTF-8 has these characters: JSON can hold half a surrogate pair (RFC 8259 section 8.2)."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def _plain(text: str, private: bool) -> Secret:
    if not is_text(text):
        message = "the plain: key is no Unicode text (half a surrogate pair): its bytes cannot be known"
        raise SecretError(
            "E-PSK-FORM", message, "for a key of any bytes: put it into a file, and write file:PATH"
        )
    if not private:
        hint = "chmod 600 the file, or put the key into a file of its own and write file:PATH"
        raise SecretError("E-PSK-MODE", "a plain: key stands in a file that others can read", hint)
    if not text:
        raise SecretError("E-PSK-EMPTY", "the key is empty", "vpnctl psk generate makes one")
    return Secret(text.encode())


def _credential_path(name: str) -> Path:
    if "/" in name or name in (".", ".."):
        raise SecretError("E-PSK-FORM", "a credential is a name, not a path", "use file:PATH for a path")
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise CredentialUnavailable(
            "E-PSK-CREDENTIAL",
            f"the credential {name} is not to be had here: $CREDENTIALS_DIRECTORY is not set",
            f"systemd sets it for a service with LoadCredential={name}:PATH",
        )
    return Path(directory) / name


def _read_private(path: Path) -> bytes:
    """The bytes of a regular file that only its owner, root or this user, can read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise SecretError(
            "E-PSK-FILE", f"the key file {path} cannot be read: {reason}", _how_to_read(path, error)
        ) from None
    try:
        _check_private(path, os.fstat(descriptor))
        return os.read(descriptor, MAX_KEY_BYTES + 1)
    finally:
        os.close(descriptor)


def _how_to_read(path: Path, error: Exception) -> str:
    """What to do about a file that could not be opened."""
    if isinstance(error, PermissionError):
        try:
            owner = path.stat().st_uid
        except OSError:
            return f"let the user that runs vpnd ({_user_name()}) into {path.parent}"
        if owner != os.geteuid():
            return f"chown {_user_name()}: {path}"
        return f"chmod 600 {path}"
    return "check the path and its owner"


def _user_name() -> str:
    """Who runs this process, as chown takes it."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _check_private(path: Path, status: os.stat_result) -> None:
    """Raises SecretError unless it is a small file that only its owner, root or this user, can read."""
    if not stat.S_ISREG(status.st_mode):
        raise SecretError("E-PSK-FILE", f"{path} is not a regular file", _NAME_IT)
    user = os.geteuid()
    # Root checks the keys of the service, which belong to its user.
    if status.st_uid not in (0, user) and (user != 0 or status.st_uid != _service_uid()):
        raise SecretError(
            "E-PSK-MODE",
            f"the key file {path} belongs to user {status.st_uid}, who could change it",
            f"chown it to root, or to the user that runs vpnd ({os.geteuid()})",
        )
    if not only_owner_reads(status):
        mode = stat.S_IMODE(status.st_mode)
        raise SecretError(
            "E-PSK-MODE", f"the key file {path} has mode {mode:04o}: others can read it", f"chmod 600 {path}"
        )
    if status.st_size > MAX_KEY_BYTES:
        raise SecretError("E-PSK-FILE", f"{path} has {status.st_size} bytes: no key is so long", _NAME_IT)


def _strip(data: bytes, what: str) -> Secret:
    """The key without the one line end that an editor puts behind it."""
    key = data.removesuffix(b"\n").removesuffix(b"\r")
    if not key:
        raise SecretError("E-PSK-EMPTY", f"the key in {what} is empty", "vpnctl psk generate makes one")
    return Secret(key)


CURLY_QUOTES = "\u2018\u2019\u201c\u201d\u201e\u201f"


def suspicions(secret: Secret) -> tuple[Suspicion, ...]:
    """What is probably wrong with a key: spaces or quotes around it, more than one line, too short."""
    key = secret.reveal()
    found: list[Suspicion] = []
    if key != key.strip():
        found.append(
            Suspicion(
                "W-PSK-SPACE",
                "the key begins or ends with white space",
                "remove it, unless the peer has it too",
            )
        )
    elif len(key) > 1 and key[:1] in b"\"'" and key[:1] == key[-1:]:
        found.append(
            Suspicion(
                "W-PSK-QUOTES", "the key is in quotes, which count as part of it", "write it without quotes"
            )
        )
    if any(quote.encode() in key for quote in CURLY_QUOTES):
        message = "the key has curly quotes, as word processors make them"
        found.append(Suspicion("W-PSK-QUOTES", message, "write it without, or with straight ones"))
    if b"\n" in key.strip():
        found.append(
            Suspicion("W-PSK-LINES", "the key has more than one line", "keep the key alone in its file")
        )
    if key[:2] in (b"0x", b"0s"):
        hint = "vpnd takes the text itself; strongSwan reads hex or base64, unless the key is in quotes"
        found.append(Suspicion("W-PSK-PREFIX", "the key begins with 0x or 0s", hint))
    if any(byte >= 0x80 for byte in key):
        hint = "vpnd uses its bytes (UTF-8); other gateways may not: use letters and digits"
        found.append(Suspicion("W-PSK-ASCII", "the key has characters beyond ASCII", hint))
    if len(key) < MIN_KEY_CHARACTERS:
        message = (
            f"the key has {len(key)} characters: who records one handshake can try keys offline"
            " (RFC 7296 section 2.15)"
        )
        found.append(Suspicion("W-PSK-SHORT", message, f"at least {MIN_KEY_CHARACTERS}; vpnctl psk generate"))
    return tuple(found)
