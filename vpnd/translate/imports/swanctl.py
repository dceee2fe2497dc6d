"""strongSwan's swanctl.conf."""

from __future__ import annotations

import base64
import binascii
import re
from itertools import pairwise
from pathlib import Path

from vpnd.config.mappings import MAX_MAPPINGS
from vpnd.model.secret import Secret
from vpnd.translate.imports import words
from vpnd.translate.imports.files import Reader
from vpnd.translate.imports.model import (
    MAX_RANGES,
    Broken,
    Connection,
    Found,
    Key,
    Place,
    Remarks,
    Rule,
    bounded,
)
from vpnd.translate.imports.settings import Entry, Section, Settings, walk

ANYONE = frozenset({"%any", "%any4", "%any6", "0.0.0.0/0", "::/0", "0.0.0.0", "::"})  # noqa: S104 (read, never bound)

CHILD_DEFAULT_LIFE = 3600

NOT_NEEDED = "not needed: {}; leave it out"
MEANINGS: dict[str, str] = {
    "local_port": "vpnd uses UDP 500 and 4500: let the peer use them too",
    "remote_port": "vpnd uses UDP 500 and 4500: let the peer use them too",
    "vips": "vpnd has no virtual addresses: give the tunnel its networks in [[tunnels.X.spd]]",
    "pools": "vpnd gives no addresses to its peers: a tunnel is between networks",
    "mobike": NOT_NEEDED.format("a peer whose address changes is followed where it proves itself"),
    "fragmentation": NOT_NEEDED.format("IKE messages are fragmented where the peer can"),
    "childless": NOT_NEEDED.format("the first CHILD_SA comes with IKE_AUTH"),
    "send_certreq": NOT_NEEDED.format("there are no certificates, only keys"),
    "send_cert": NOT_NEEDED.format("there are no certificates, only keys"),
    "ppk_id": "vpnd has no post-quantum keys (RFC 8784): the peer must not require one",
    "ppk_required": "vpnd has no post-quantum keys (RFC 8784): the peer must not require one",
    "keyingtries": NOT_NEEDED.format("what is wanted is tried again without end"),
    "unique": NOT_NEEDED.format("there is one IKE SA for each tunnel, and a newer one takes its place"),
    "reauth_time": "IKEv2 is rekeyed, not authenticated again: ike.lifetime is what counts",
    "over_time": NOT_NEEDED.format("an SA is renewed before its end (rekey_margin)"),
    "rand_time": "the rekey is early by chance within rekey_margin and rekey_fuzz, in percent",
    "rand_bytes": "the rekey is early by chance within rekey_margin and rekey_fuzz, in percent",
    "rand_packets": "vpnd counts bytes and seconds, no packets",
    "rekey_packets": "vpnd counts bytes and seconds, no packets",
    "life_packets": "vpnd counts bytes and seconds, no packets",
    "if_id_in": "each tunnel of vpnd has an interface of its own: route to it, by routes or your own",
    "if_id_out": "each tunnel of vpnd has an interface of its own: route to it, by routes or your own",
    "mark_in": "vpnd sets no marks: each tunnel has an interface of its own, which rules can match",
    "mark_out": "vpnd sets no marks: each tunnel has an interface of its own, which rules can match",
    "mark_in_sa": "vpnd sets no marks: each tunnel has an interface of its own, which rules can match",
    "set_mark_in": "vpnd sets no marks: each tunnel has an interface of its own, which rules can match",
    "set_mark_out": "vpnd sets no marks: each tunnel has an interface of its own, which rules can match",
    "dscp": "vpnd sets no DSCP of IKE packets: mark them by a firewall rule for UDP 500 and 4500",
    "copy_df": NOT_NEEDED.format("the path's MTU is found, and what does not fit is answered"),
    "copy_ecn": NOT_NEEDED.format("ECN is copied as RFC 6040 says"),
    "copy_dscp": NOT_NEEDED.format("DSCP is copied to the outer packet"),
    "updown": "vpnd runs no scripts: follow `vpnctl events --follow` instead",
    "hostaccess": NOT_NEEDED.format("the firewall is yours, by the tunnel's interface"),
    "policies": "vpnd installs what it negotiates; it has no tunnel without policies",
    "policies_fwd_out": NOT_NEEDED.format("there are no kernel policies"),
    "ipcomp": "vpnd has no compression: leave it out at the peer too",
    "inactivity": "vpnd closes no idle tunnel: `vpnctl down` does",
    "reqid": NOT_NEEDED.format("there are no kernel policies"),
    "priority": "vpnd orders rules by how narrow they are; overlapping ones are refused",
    "interface": "a tunnel is bound to no outer interface: the route to the peer decides",
    "label": "vpnd has no security labels",
    "tfc_padding": "vpnd does not pad packets to hide their length",
    "hw_offload": NOT_NEEDED.format("ESP is done in user space"),
    "close_action": "after a DELETE of the peer an active tunnel begins again, a passive one waits",
    "ah_proposals": "vpnd has ESP alone: let the peer use it",
    "pull": NOT_NEEDED.format("there is no mode config"),
    "mediation": "vpnd has no mediation: both ends must reach each other",
    "mediated_by": "vpnd has no mediation: both ends must reach each other",
    "mediation_peer": "vpnd has no mediation: both ends must reach each other",
    "round": NOT_NEEDED.format("there is one authentication"),
    "life_time": "the end of an SA follows from ipsec.lifetime: the rekey comes rekey_margin before it",
    "life_bytes": "the end of an SA in bytes follows from ipsec.lifetime_kb",
    "groups": "vpnd knows peers by their keys, not by groups of certificates",
    "eap_id": "vpnd has pre-shared keys alone, no EAP",
    "xauth_id": "vpnd has pre-shared keys alone, no XAuth",
    "aaa_id": "vpnd has pre-shared keys alone, no EAP",
    "certs": "vpnd has pre-shared keys alone: agree on one with the peer",
    "cert": "vpnd has pre-shared keys alone: agree on one with the peer",
    "pubkeys": "vpnd has pre-shared keys alone: agree on one with the peer",
    "cacerts": "vpnd has pre-shared keys alone: agree on one with the peer",
    "cert_policy": "vpnd has pre-shared keys alone: agree on one with the peer",
    "revocation": NOT_NEEDED.format("there are no certificates, only keys"),
    "ocsp": NOT_NEEDED.format("there are no certificates, only keys"),
    "ca_id": NOT_NEEDED.format("there are no certificates, only keys"),
}
"""What a key means that is not taken over, and what to do."""

UNKNOWN = "this is not known to the importer: look up what it does, and whether the peer needs it"

QUIET = {
    "mobike": ("no",),
    "keyingtries": ("1", "0"),
    "unique": ("no", "never"),
    "fragmentation": ("yes",),
    "childless": ("allow", "never"),
    "policies": ("yes",),
    "hw_offload": ("no",),
    "ipcomp": ("no",),
    "pull": ("yes",),
    "close_action": ("none",),
    "copy_df": ("yes",),
}
"""Values that vpnd has as well: nothing is said of them."""


def read(path: Path, reader: Reader) -> Found:
    """All connections and keys of a file and of what it includes. Raises Broken."""
    settings = Settings(reader)
    settings.read(path)
    found = Found(remarks=reader.remarks)
    root = settings.root
    for name, section in root.sections.items():
        if name == "connections":
            for inner in section.sections.values():
                connection = _Connection(settings, found.remarks).made(settings.merged(inner))
                if connection is not None:
                    found.add(connection)
        elif name == "secrets":
            _secrets(settings, section, found)
        elif name in ("pools", "authorities"):
            text = "vpnd gives no addresses to its peers" if name == "pools" else "vpnd has no certificates"
            found.remarks.add(section.place, name, f"{text}: left out")
    for entry in root.entries.values():
        found.remarks.add(entry.place, entry.line, UNKNOWN)
    return found


class _Connection:
    """One section of `connections`."""

    def __init__(self, settings: Settings, remarks: Remarks) -> None:
        self._settings, self._remarks = settings, remarks

    def made(self, section: Section) -> Connection | None:
        """The connection; None for one that is only there to be inherited from, or needs certificates."""
        made = Connection(section.name, section.place)
        self._ends(section, made)
        if not self._authenticated(section, made):
            return None
        for entry in section.entries.values():
            self._entry(entry, made)
        children = section.sections.get("children")
        inner = list(self._settings.merged(children).sections.values()) if children is not None else []
        if not inner:
            text = "it has no children, so there is nothing to protect: left out"
            self._remarks.add(section.place, section.name, text)
            return None
        for number, child in enumerate(inner):
            self._child(self._settings.merged(child), made, first=number == 0)
        for name, other in section.sections.items():
            if name != "children" and not re.match(r"(local|remote)", name):
                self._remarks.add(other.place, f"{name} {{", UNKNOWN)
        _usual(made)
        return made

    # ---------------------------------------------------------------------------- the connection

    def _ends(self, section: Section, made: Connection) -> None:
        for end in ("local", "remote"):
            entry = section.entries.get(f"{end}_addrs")
            if entry is None:
                continue
            wanted = [one.strip() for one in entry.value.split(",") if one.strip()]
            usual = [one for one in wanted if one not in ANYONE]
            if len(usual) > 1 or any("/" in one or "-" in one for one in usual):
                text = f"vpnd has one address of each end: {usual[0]} is taken"
                self._remarks.add(entry.place, entry.line, text)
            if usual:
                setattr(made, f"{end}_address", usual[0].split("/")[0].split("-")[0])

    def _authenticated(self, section: Section, made: Connection) -> bool:
        for name, inner in section.sections.items():
            matched = re.match(r"(local|remote)", name)
            if matched is None:
                continue
            auth = self._settings.merged(inner)
            method = auth.entries.get("auth")
            if method is not None and method.value.strip() not in ("psk", "any"):
                text = "vpnd has pre-shared keys alone: agree on a key with the peer; left out"
                self._remarks.add(method.place, f"{section.name}: {method.line}", text)
                return False
            for entry in auth.entries.values():
                if entry.key == "id":
                    setattr(made, f"{matched[1]}_id", self._identity(entry))
                elif entry.key != "auth":
                    self._tell(entry)
        return True

    def _identity(self, entry: Entry) -> str | None:
        if entry.value.strip() in ("%any", ""):
            return None
        found = words.identity(entry.value)
        if found is None:
            text = 'vpnd has addresses and domain names as identities, and "@TEXT": choose one at both ends'
            self._remarks.add(entry.place, entry.line, text)
        return found

    def _entry(self, entry: Entry, made: Connection) -> None:
        value = entry.value.strip()
        match entry.key:
            case "local_addrs" | "remote_addrs":
                pass
            case "version":
                made.ikev2 = value != "1"
                if value == "0":
                    self._remarks.add(
                        entry.place, entry.line, "vpnd has one version a tunnel: ikev2 is taken"
                    )
            case "aggressive":
                made.aggressive = words.yes(value) is True
            case "proposals":
                made.ike = words.proposals(value, entry.place, self._remarks, esp=False)
            case "encap":
                made.udp = words.yes(value) is True
            case "dpd_delay":
                made.dpd = made.dpd or self._time(entry, scale=3)
            case "dpd_timeout":
                made.dpd = self._time(entry)
            case "rekey_time":
                made.ike_lifetime = self._time(entry) or made.ike_lifetime
            case "reauth_time" if not made.ikev2 or made.ike_lifetime is None:
                made.ike_lifetime = self._time(entry) or made.ike_lifetime
            case _:
                self._tell(entry)

    # --------------------------------------------------------------------------------- a child

    def _child(self, child: Section, made: Connection, first: bool) -> None:
        mode = child.entries.get("mode")
        if mode is not None and mode.value.strip() not in ("tunnel",):
            text = "vpnd has tunnel mode alone: left out; let the peer use tunnel mode, or another program"
            self._remarks.add(mode.place, f"{child.name}: {mode.line}", text)
            return
        made.rules += self._rules(child, made)
        for entry in child.entries.values():
            self._child_entry(entry, made, first)

    def _child_entry(self, entry: Entry, made: Connection, first: bool) -> None:
        value = entry.value.strip()
        match entry.key:
            case "local_ts" | "remote_ts" | "mode":
                pass
            case "esp_proposals":
                found = words.proposals(value, entry.place, self._remarks, esp=True)
                if not first and made.esp != found:
                    text = (
                        "a tunnel of vpnd has one set of ESP algorithms: those of the first child are taken"
                    )
                    self._remarks.add(entry.place, entry.line, text)
                else:
                    made.esp = found
            case "rekey_time":
                made.esp_lifetime = self._time(entry) or made.esp_lifetime
            case "rekey_bytes" | "life_bytes" if value.isdecimal() and len(value) <= 18:
                made.kilobytes = max(1, int(value) // 1024) if int(value) else None
            case "start_action":
                made.negotiation = _begins(value)
            case "dpd_action":
                made.dpd_action = "retry" if value in ("restart", "start", "hold", "trap") else "disconnect"
            case "replay_window" if value.isdecimal() and len(value) <= 6:
                made.replay_window = int(value)
            case "sha256_96":
                made.sha256_96 = words.yes(value) is True
            case _:
                self._tell(entry)

    def _rules(self, child: Section, made: Connection) -> list[Rule]:
        found = []
        ends = {end: self._selectors(child, end, made) for end in ("local", "remote")}
        if len(made.rules) + len(ends["local"]) * len(ends["remote"]) > MAX_RANGES:
            text = f"{made.name} has more than {MAX_RANGES} pairs of ranges, and vpnd takes at most"
            raise Broken(child.place, f"{text} {MAX_MAPPINGS} mappings: write larger ranges that hold them")
        for local in ends["local"]:
            for remote in ends["remote"]:
                protocol = local[1] or remote[1]
                found.append(Rule([local[0]], [remote[0]], protocol, local[2], remote[2]))
        return found

    def _selectors(
        self, child: Section, end: str, made: Connection
    ) -> list[tuple[str, str | None, str | None]]:
        entry = child.entries.get(f"{end}_ts")
        place = entry.place if entry is not None else child.place
        value = entry.value if entry is not None else "dynamic"
        found = []
        written = _listed(value)
        bounded(written, place, f"{end}_ts")
        for one in written:
            text, _, narrowed = one.partition("[")
            host = made.local_address if end == "local" else made.remote_address
            network = words.network(host or "") if text.strip() == "dynamic" else words.network(text)
            if network is None:
                why = "vpnd has CIDR blocks: write the range as one or several"
                if text.strip() == "dynamic":
                    why = f"it means the address of this end, which is not known: write it as {end} of a rule"
                self._remarks.add(place, f"{end}_ts = {one}", why)
                continue
            words_ = narrowed.rstrip("] ").split("/")
            protocol = words.protocol(words_[0]) if words_[0] else None
            port = words.port(words_[1]) if len(words_) > 1 else None
            if (narrowed and protocol is None) or (len(words_) > 1 and port is None):
                self._remarks.add(place, f"{end}_ts = {one}", "protocol and port are numbers, or known words")
            found.append((network, protocol, port))
        return found

    # ------------------------------------------------------------------------------------ words

    def _time(self, entry: Entry, scale: int = 1) -> int | None:
        found = words.seconds(entry.value)
        if found is None:
            self._remarks.add(
                entry.place, entry.line, "this is no time: write seconds, or a number with s, m, h, d"
            )
        return found * scale if found is not None else None

    def _tell(self, entry: Entry) -> None:
        if entry.value.strip().lower() in QUIET.get(entry.key, ()):
            return
        self._remarks.add(entry.place, entry.line, MEANINGS.get(entry.key, UNKNOWN))


def _listed(value: str) -> list[str]:
    """What stands between commas that are not in brackets."""
    cuts, inside = [-1], False
    for at, sign in enumerate(value):
        inside = sign == "[" or (inside and sign != "]")
        if sign == "," and not inside:
            cuts.append(at)
    cuts.append(len(value))
    return [one for begin, end in pairwise(cuts) if (one := value[begin + 1 : end].strip())]


def _begins(action: str) -> str:
    actions = set(re.split(r"[|,\s]+", action.lower()))
    if "start" in actions:
        return "active"
    return "traffic-triggered" if actions & {"trap", "route"} else "passive"


def _usual(made: Connection) -> None:
    """strongSwan's defaults for what is not written."""
    if not made.ike.encryption:
        made.ike = words.USUAL_IKE
    if not made.esp.encryption:
        made.esp = words.USUAL_ESP
    made.esp_lifetime = made.esp_lifetime or CHILD_DEFAULT_LIFE


# ------------------------------------------------------------------------------------ the keys


def _secrets(settings: Settings, section: Section, found: Found) -> None:
    for name, inner in section.sections.items():
        if not name.startswith("ike"):
            for entry in walk(inner):
                text = "vpnd has pre-shared keys of IKE alone: left out"
                found.remarks.add(entry.place, f"{name} {{ {entry.key} ...", text)
            continue
        merged = settings.merged(inner)
        secret = merged.entries.get("secret")
        if secret is None:
            found.remarks.add(inner.place, name, "it has no secret: left out")
            continue
        found.count_owners(len(merged.entries), inner.place)
        owners = tuple(
            words.identity(entry.value) or entry.value.strip()
            for key, entry in merged.entries.items()
            if key.startswith("id")
        )
        found.add_key(Key(owners, secret_of(secret.value, secret.place, settings.reader), secret.place))


def secret_of(value: str, place: Place, reader: Reader) -> Secret:
    """The key that a text means: hex after 0x, base64 after 0s, else itself."""
    text = value
    try:
        if text[:2].lower() == "0x":
            return Secret(binascii.unhexlify(text[2:].replace("_", "")))
        if text[:2].lower() == "0s":
            return Secret(base64.b64decode(text[2:], validate=False))
    except (binascii.Error, ValueError):
        reader.remarks.add(
            place, "secret = ...", "what follows 0x or 0s cannot be decoded: the text itself is taken"
        )
    return Secret(reader.octets(text, place))
