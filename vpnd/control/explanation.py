"""What an explanation of a failure is made of: the facts of a diagnosis, and its parts for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vpnd.control.schema import ConfiguredHere, ExplanationBody
from vpnd.model.diagnosis import Diagnosis
from vpnd.model.text import printable


@dataclass(frozen=True, slots=True)
class Explanation:
    """A failure for people; `change` and `try_` say what to do about it."""

    code: str
    what: str
    peer_said: str | None = None
    we_have: str | None = None
    also_possible: tuple[str, ...] = ()
    change: str | None = None
    try_: tuple[str, ...] = ()

    def body(self, where: Iterable[ConfiguredHere] = ()) -> ExplanationBody:
        """As the API says it; `where` are the values here that it is about."""
        return ExplanationBody(
            code=self.code,
            what=self.what,
            peer_said=self.peer_said,
            we_have=self.we_have,
            also_possible=list(self.also_possible),
            change=self.change,
            try_=list(self.try_),
            where=list(where),
        )


@dataclass(frozen=True, slots=True)
class About:
    """What the words depend on beside the facts; None where it is not known.

    `version` is the tunnel's, `ikev1` or `ikev2`. `vendor` is the peer's maker, as its vendor IDs say.
    `udp`: whether ESP travels in UDP. `gateway`: the key of its
    customer gateway's table, `customer_gateways.branch`.
    """

    version: str | None = None
    vendor: str | None = None
    udp: bool | None = None
    gateway: str | None = None


UNKNOWN = About()


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of one diagnosis, safe to print."""

    diagnosis: Diagnosis
    tunnel: str
    about: About = UNKNOWN

    def __getitem__(self, key: str) -> str | None:
        value = self.diagnosis.fact(key)
        return None if value is None else printable(value)

    @property
    def code(self) -> str:
        return self.diagnosis.code.value

    @property
    def notify(self) -> str | None:
        """`NO_PROPOSAL_CHOSEN in CREATE_CHILD_SA`, say; who sent the notify depends on the role."""
        where = self["exchange"]
        if self["notify"] is None:
            return None
        return f"{self['notify']} in {where}" if where else self["notify"]

    @property
    def peer(self) -> str:
        return self["peer"] or "the peer"

    @property
    def peer_key(self) -> str:
        """The key that has the peer's address."""
        return f"{printable(self.about.gateway or 'customer_gateways.NAME')}.address"

    def during(self) -> str:
        """` (IKE_AUTH)`, or nothing."""
        return f" ({self['exchange']})" if self["exchange"] else ""

    def mapping(self) -> str:
        """`10.1.0.0/24 - 10.2.0.0/24: `, or nothing."""
        return f"{self['mapping']}: " if self["mapping"] else ""
