"""What is asked for a tunnel, in the specification's steps: each value, its words, when it is of use."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vpnd.crypto.suites import ENCRYPTIONS, GROUPS, INTEGRITIES

CIPHERS = tuple(ENCRYPTIONS)
HASHES = tuple(INTEGRITIES)
GROUP_NUMBERS = tuple(str(number) for number in GROUPS)
ON = ("health_check.enabled", "yes")


class Kind(StrEnum):
    """How a value is asked for."""

    TEXT = "text"
    NUMBER = "number"
    CHOICE = "choice"
    SEVERAL = "several"
    YES = "yes"
    LINES = "lines"


@dataclass(frozen=True, slots=True)
class Field:
    """One value of a tunnel's table, by its dotted key. `label` and `about` are texts of the catalogue.

    `when`: the key of another value and what it has to be for this one to mean anything; `empty`: what it
    means without a value.
    """

    key: str
    label: str
    kind: Kind = Kind.TEXT
    about: str = ""
    choices: tuple[str, ...] = ()
    when: tuple[str, str] | None = None
    empty: str = "–"

    def word(self, choice: str) -> str:
        """A choice as the form shows it; a DH group's number says little."""
        group = GROUPS.get(int(choice)) if self.choices == GROUP_NUMBERS else None
        return choice if group is None else f"{choice} ({group.name})"

    def weak(self, choice: str) -> str | None:
        """Why a choice should not be made, if so."""
        if self.choices == GROUP_NUMBERS:
            return GROUPS[int(choice)].warning
        known = ENCRYPTIONS.get(choice) or INTEGRITIES.get(choice)
        return known.warning if known is not None else None


@dataclass(frozen=True, slots=True)
class Step:
    """One page of the form."""

    name: str
    title: str
    fields: tuple[Field, ...]


def _(text: str) -> str:
    """Marks a text of the catalogue."""
    return text


STEPS = (
    Step(
        "basic",
        _("Basic settings"),
        (
            Field("description", _("Description"), about=_("Free text, shown in the list.")),
            Field(
                "profile",
                _("Profile"),
                Kind.CHOICE,
                _("Which defaults apply below; tencent-cloud has that console's, among them weak ones."),
                ("default", "tencent-cloud"),
            ),
            Field(
                "negotiation",
                _("Negotiation type"),
                Kind.CHOICE,
                _("Active: we begin. Passive: the peer begins. Traffic-triggered: the first packet does."),
                ("active", "passive", "traffic-triggered"),
            ),
            Field(
                "communication",
                _("Communication mode"),
                Kind.CHOICE,
                _("Destination routes decide what enters the tunnel (recommended), or SPD rules do."),
                ("destination-route", "spd-policy"),
            ),
            Field(
                "priority",
                _("Priority"),
                Kind.NUMBER,
                _("0 to 65535. Of two tunnels with one route the healthy one with the lower carries it."),
            ),
        ),
    ),
    Step(
        "advanced",
        _("Advanced settings"),
        (
            Field(
                "dpd.enabled", _("Dead peer detection"), Kind.YES, _("Asks a silent peer whether it lives.")
            ),
            Field(
                "dpd.timeout",
                _("DPD timeout (s)"),
                Kind.NUMBER,
                _("Seconds of silence after which the peer is dead: 10 to 3600, usually 30 to 60."),
                when=("dpd.enabled", "yes"),
            ),
            Field(
                "dpd.action",
                _("DPD timeout action"),
                Kind.CHOICE,
                _("Retry connects again; disconnect clears the SAs and waits."),
                ("retry", "disconnect"),
                ("dpd.enabled", "yes"),
            ),
            Field(
                "health_check.enabled",
                _("Health check"),
                Kind.YES,
                _("Pings the peer in the tunnel. An unhealthy one carries no traffic: for pairs of tunnels."),
            ),
            Field(
                "health_check.local",
                _("VPN gateway IP for the health check"),
                about=_("Empty: one is assigned. It must be in no range of a tunnel."),
                when=ON,
                empty=_("assigned by vpnd"),
            ),
            Field(
                "health_check.remote",
                _("Customer gateway IP for the health check"),
                about=_("Empty: one is assigned, and shown for the other side."),
                when=ON,
                empty=_("assigned by vpnd"),
            ),
        ),
    ),
    Step(
        "communication",
        _("Communication mode"),
        (
            Field(
                "routes",
                _("Routes"),
                Kind.LINES,
                _("Ranges behind the peer, one a line, such as 10.2.0.0/16."),
                when=("communication", "destination-route"),
            ),
        ),
    ),
    Step(
        "ike",
        _("IKE options"),
        (
            Field("ike.version", _("Version"), Kind.CHOICE, choices=("ikev2", "ikev1")),
            Field(
                "ike.negotiation_mode",
                _("Negotiation mode"),
                Kind.CHOICE,
                _("Aggressive mode sends the identity in clear and lets anyone try guesses of the key."),
                ("main", "aggressive"),
                ("ike.version", "ikev1"),
            ),
            Field(
                "ike.encryption",
                _("Encryption algorithm"),
                Kind.SEVERAL,
                _("One or more that the peer may choose from."),
                CIPHERS,
            ),
            Field("ike.integrity", _("Verification algorithm"), Kind.SEVERAL, choices=HASHES),
            Field(
                "ike.dh_group",
                _("DH group"),
                Kind.SEVERAL,
                _("A larger group is stronger and slower; 19 and 31 are strong and fast."),
                GROUP_NUMBERS,
            ),
            Field(
                "ike.local_id",
                _("Local ID"),
                about=_("An IP address or a name; empty: this gateway's address."),
                empty=_("this gateway's address"),
            ),
            Field(
                "ike.remote_id",
                _("Customer ID"),
                about=_("An IP address or a name; empty: the peer's address."),
                empty=_("the peer's address"),
            ),
            Field(
                "ike.lifetime",
                _("IKE SA lifetime (s)"),
                Kind.NUMBER,
                _("10 to 31536000 (a year). An SA is replaced in time, without loss."),
            ),
        ),
    ),
    Step(
        "ipsec",
        _("IPsec options"),
        (
            Field("ipsec.encryption", _("Encryption algorithm"), Kind.SEVERAL, choices=CIPHERS),
            Field("ipsec.integrity", _("Verification algorithm"), Kind.SEVERAL, choices=HASHES),
            Field(
                "ipsec.pfs",
                _("PFS"),
                Kind.SEVERAL,
                _("A key exchange of its own for each rekey; none: disabled. Both sides need the same."),
                GROUP_NUMBERS,
            ),
            Field(
                "ipsec.lifetime",
                _("IPsec SA lifetime (s)"),
                Kind.NUMBER,
                _("10 to 31536000 (a year). An SA is replaced in time, without loss."),
            ),
            Field(
                "ipsec.lifetime_kb",
                _("IPsec SA lifetime (KB)"),
                Kind.NUMBER,
                _("What one SA carries at most; 0: no limit."),
            ),
            Field(
                "ipsec.encapsulation",
                _("UDP encapsulation"),
                Kind.CHOICE,
                _("Auto: where a NAT is found."),
                ("auto", "udp"),
            ),
        ),
    ),
)
"""In the specification's order; a summary follows."""

BY_NAME = {step.name: step for step in STEPS}

FIELDS = {one.key: one for step in STEPS for one in step.fields}
"""By their keys."""
