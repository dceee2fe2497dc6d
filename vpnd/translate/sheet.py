"""What is written for a peer: lines, comments that say why, and what its product cannot do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import wrap
from typing import TypeVar

from vpnd.translate.side import AEAD, Algorithms, NotPossible, Side

PLACEHOLDER = "PUT-THE-PRE-SHARED-KEY-HERE"
"""Where the key goes. It is never in what is written."""

WIDTH = 98
"""Columns of a comment."""

SM = frozenset({"sm4", "sm3"})

V = TypeVar("V", str, int)


class Sheet:
    """The text under way. `comment` is how the product begins one."""

    def __init__(self, product: str, comment: str = "#") -> None:
        self.product = product
        self._comment = comment
        self._body: list[str] = []
        self._notes: list[str] = []
        self._impossible: list[str] = []

    # ------------------------------------------------------------------------------- writing

    def lines(self, *lines: str, indent: int = 0) -> None:
        """Lines of the configuration."""
        self._body += [f"{' ' * indent}{line}".rstrip() for line in lines]

    def why(self, text: str, indent: int = 0) -> None:
        """A comment at this place."""
        self._body += self._commented(text, indent)

    def note(self, text: str) -> None:
        """What the peer's operator has to know: it stands at the top, and in the list of notes."""
        if text not in self._notes:
            self._notes.append(text)

    def cannot(self, text: str) -> None:
        """What the product lacks, so that there is no configuration. The search for more goes on."""
        if text not in self._impossible:
            self._impossible.append(text)

    @property
    def notes(self) -> tuple[str, ...]:
        """What stands at the top."""
        return tuple(self._notes)

    def text(self, head: Iterable[str]) -> str:
        """The whole. Raises NotPossible for what the product cannot do."""
        if self._impossible:
            raise NotPossible("; ".join(self._impossible))
        top = [line for text in head for line in self._commented(text, 0)]
        for note in self._notes:
            if not note.startswith(" "):
                top.append(self._comment)
            top += self._commented(note, 0)
        return "\n".join([*top, "", *self._body]).rstrip() + "\n"

    def _commented(self, text: str, indent: int) -> list[str]:
        start = f"{' ' * indent}{self._comment}"
        # What is indented is a command to copy: it stays on its line.
        pieces = [text] if text.startswith(" ") else wrap(text, WIDTH - len(start)) or [""]
        return [f"{start} {piece}".rstrip() for piece in pieces]

    # ------------------------------------------------------------------------------ choosing

    def words(self, table: Mapping[V, str], wanted: Sequence[V], what: str) -> list[tuple[V, str]]:
        """Ours with the product's word for each; what it lacks is left out and noted, or is all there is."""
        known = [(word, table[word]) for word in wanted if word in table]
        lacking = ", ".join(str(word) for word in wanted if word not in table)
        if not lacking:
            return known
        if known:
            self.note(f"{self.product} has no {what} {lacking}: left out here.")
        else:
            hint = " (vpnd, Huawei and H3C have SM4 and SM3)" if SM & set(map(str, wanted)) else ""
            self.cannot(f"{self.product} has no {what} {lacking}{hint}: choose one that both have")
        return known

    def only_one(self, found: Sequence[tuple[V, str]], what: str) -> str:
        """The preferred one, where the product takes one; the others are noted."""
        if len(found) > 1:
            others = ", ".join(str(word) for word, _ in found[1:])
            self.note(f"{self.product} takes one {what}: {found[0][0]} is written, {others} left out.")
        return found[0][1] if found else ""


def by_kind(algorithms: Algorithms) -> list[tuple[bool, Algorithms]]:
    """Ciphers with and without an integrity of their own, apart; the kind of the preferred one is first."""
    found = []
    for aead in dict.fromkeys(word in AEAD for word in algorithms.encryption):
        ciphers = tuple(word for word in algorithms.encryption if (word in AEAD) is aead)
        found.append((aead, Algorithms(ciphers, algorithms.integrity, algorithms.groups)))
    return found


def about(side: Side, sheet: Sheet, where: str) -> list[str]:
    """The first lines, and what every product's operator has to know."""
    if side.legacy:
        sheet.note(
            f"Weak algorithms are in use: {', '.join(side.legacy)}. Agree on AES, SHA-256 and DH group 14"
            " or better where both ends can."
        )
    return [
        f"The other side of the tunnel {side.tunnel!r} of the gateway {side.gateway!r}.",
        *where.split("\n"),
    ]


def key_line(side: Side) -> str:
    """What stands beside the placeholder of the key."""
    return f"The key of both sides. Its fingerprint at this end: {side.fingerprint} (vpnctl psk fingerprint)"


def health_note(side: Side, sheet: Sheet, how: str) -> None:
    """The address that the health check wants at the peer; `how` has `{local}` and `{remote}`."""
    if side.health is not None:
        local, remote = side.health
        sheet.note("The health check pings the peer inside the tunnel; there it must have this address:")
        sheet.note("    " + how.format(local=local, remote=remote))


def only_ipv4(side: Side, sheet: Sheet) -> None:
    """For products whose commands are written here for IPv4."""
    if side.ipv6:
        sheet.cannot(f"for {sheet.product} vpnd writes IPv4 only, and this tunnel has IPv6 addresses")


def only_addresses(side: Side, sheet: Sheet) -> None:
    """For clouds, which prove themselves by their public address."""
    for whose, key, identity, address in (
        (sheet.product, "ike.remote_id", side.local_id, side.local_address),
        ("this gateway", "ike.local_id", side.remote_id, side.remote_address),
    ):
        if address is not None and str(identity) != str(address):
            sheet.cannot(
                f"{sheet.product} knows peers by their public addresses, and the identity of {whose} is"
                f" {identity}: set {key} to {address}"
            )


def narrowed(side: Side) -> bool:
    """Whether a mapping is for a protocol or for ports."""
    return any(one.protocol for one in side.traffic)
