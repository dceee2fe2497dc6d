"""ipsec.conf of strongSwan and of libreswan: sections by indentation, `also=`, `conn %default`, includes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path

from vpnd.translate.imports import words
from vpnd.translate.imports.files import Reader
from vpnd.translate.imports.model import Broken, Connection, Found, Place, Remarks, Rule, bounded
from vpnd.translate.imports.settings import Entry
from vpnd.translate.imports.swanctl import NOT_NEEDED, UNKNOWN

MAX_ALSO = 32
"""Ours: sections that include each other by `also`."""

DEFAULT = "%default"

ANY = frozenset({"%any", "%any4", "%any6", "%group", "%opportunistic", "%opportunisticgroup"})
OWN = frozenset({"%defaultroute", "%ppp0", "%eth0"})

SETUP = "vpnd has no such setting for the whole daemon"
MEANINGS: dict[str, str] = {
    "mobike": NOT_NEEDED.format("a peer whose address changes is followed where it proves itself"),
    "fragmentation": NOT_NEEDED.format("IKE messages are fragmented where the peer can"),
    "keyingtries": NOT_NEEDED.format("what is wanted is tried again without end"),
    "rekey": NOT_NEEDED.format("what is wanted is renewed before it ends"),
    "reauth": NOT_NEEDED.format("IKEv2 is rekeyed, IKEv1 authenticates again"),
    "rekeymargin": "write it in percent: ipsec.rekey_margin and ike.rekey_margin",
    "margintime": "write it in percent: ipsec.rekey_margin and ike.rekey_margin",
    "rekeyfuzz": "write it in percent of the margin: rekey_fuzz",
    "compress": "vpnd has no compression: leave it out at the peer too",
    "installpolicy": NOT_NEEDED.format("there are no kernel policies"),
    "reqid": NOT_NEEDED.format("there are no kernel policies"),
    "priority": "vpnd orders rules by how narrow they are; overlapping ones are refused",
    "mark": "vpnd sets no marks: each tunnel has an interface of its own, which rules can match",
    "mark_in": "vpnd sets no marks: each tunnel has an interface of its own, which rules can match",
    "mark_out": "vpnd sets no marks: each tunnel has an interface of its own, which rules can match",
    "updown": "vpnd runs no scripts: follow `vpnctl events --follow` instead",
    "updown-config": "vpnd runs no scripts: follow `vpnctl events --follow` instead",
    "reject-simultaneous-ike-auth": NOT_NEEDED.format("of two IKE SAs that both ends begin one stays"),
    "firewall": NOT_NEEDED.format("the firewall is yours, by the tunnel's interface"),
    "hostaccess": NOT_NEEDED.format("the firewall is yours, by the tunnel's interface"),
    "nexthop": NOT_NEEDED.format("the route to the peer decides"),
    "allowany": 'a peer of any address is a customer gateway with address = "any"',
    "sourceip": "vpnd has no virtual addresses: give the tunnel its networks in [[tunnels.X.spd]]",
    "sourceips": "vpnd has no virtual addresses: give the tunnel its networks in [[tunnels.X.spd]]",
    "dns": "vpnd gives no addresses or name servers to its peers",
    "addresspool": "vpnd gives no addresses or name servers to its peers",
    "modecfgclient": "vpnd has no mode config",
    "modecfgserver": "vpnd has no mode config",
    "modecfgpull": "vpnd has no mode config",
    "modeconfig": "vpnd has no mode config",
    "xauthclient": "vpnd has pre-shared keys alone, no XAuth",
    "xauthserver": "vpnd has pre-shared keys alone, no XAuth",
    "xauth": "vpnd has pre-shared keys alone, no XAuth",
    "xauth_identity": "vpnd has pre-shared keys alone, no XAuth",
    "cert": "vpnd has pre-shared keys alone: agree on one with the peer",
    "sendcert": NOT_NEEDED.format("there are no certificates, only keys"),
    "ca": "vpnd has pre-shared keys alone: agree on one with the peer",
    "rsasigkey": "vpnd has pre-shared keys alone: agree on one with the peer",
    "sigkey": "vpnd has pre-shared keys alone: agree on one with the peer",
    "ckaid": "vpnd has pre-shared keys alone: agree on one with the peer",
    "groups": "vpnd knows peers by their keys, not by groups of certificates",
    "eap_identity": "vpnd has pre-shared keys alone, no EAP",
    "aaa_identity": "vpnd has pre-shared keys alone, no EAP",
    "closeaction": "after a DELETE of the peer an active tunnel begins again, a passive one waits",
    "inactivity": "vpnd closes no idle tunnel: `vpnctl down` does",
    "ikeport": "vpnd uses UDP 500 and 4500: let the peer use them too",
    "interface": "each tunnel of vpnd has an interface of its own: route to it, by routes or your own",
    "vti": "each tunnel of vpnd has an interface of its own: route to it, by routes or your own",
    "vti-interface": "each tunnel of vpnd has an interface of its own: route to it, by routes or your own",
    "vti-routing": "each tunnel of vpnd has an interface of its own: route to it, by routes or your own",
    "vti-shared": "each tunnel of vpnd has an interface of its own: route to it, by routes or your own",
    "ipsec-interface": "each tunnel of vpnd has an interface of its own: route to it, by routes or your own",
    "metric": "the metric of a route is vpnd's: of two tunnels the lower priority carries it",
    "mtu": "write it as mtu of the tunnel; without it the path's MTU is found",
    "overlapip": "vpnd refuses rules that overlap",
    "nat-keepalive": NOT_NEEDED.format("keepalives are sent where there is a NAT"),
    "nat-ikev1-method": NOT_NEEDED.format("RFC 3947 and its drafts are both offered"),
    "initial-contact": NOT_NEEDED.format("INITIAL_CONTACT is sent as RFC 7296 says"),
    "narrowing": NOT_NEEDED.format("a peer may narrow ranges, and E-NARROW says so"),
    "decap-dscp": NOT_NEEDED.format("DSCP is copied to the outer packet"),
    "nopmtudisc": NOT_NEEDED.format("the path's MTU is found"),
    "tfc": "vpnd does not pad packets to hide their length",
    "send-no-esp-tfc": NOT_NEEDED.format("ESP is not padded"),
    "failureshunt": "without a tunnel what it protects stays in: vpnd guard",
    "negotiationshunt": "without a tunnel what it protects stays in: vpnd guard",
    "nic-offload": NOT_NEEDED.format("ESP is done in user space"),
    "enable-tcp": "vpnd has no IKE over TCP",
    "tcp-remoteport": "vpnd has no IKE over TCP",
    "ppk": "vpnd has no post-quantum keys (RFC 8784): the peer must not require one",
    "intermediate": NOT_NEEDED.format("there is no IKE_INTERMEDIATE"),
    "sec-label": "vpnd has no security labels",
    "send-redirect": NOT_NEEDED.format("there is no IKE redirect"),
    "accept-redirect": NOT_NEEDED.format("there is no IKE redirect"),
    "fake-strongswan": NOT_NEEDED.format("there is nothing to pretend"),
    "send-vendorid": NOT_NEEDED.format("a vendor id is sent"),
    "cisco-unity": "vpnd has no Cisco Unity extensions",
    "remote-peer-type": "vpnd has no Cisco Unity extensions",
    "nm-configured": NOT_NEEDED.format("NetworkManager is not asked"),
    "hidetos": NOT_NEEDED.format("DSCP is copied to the outer packet"),
    "connalias": NOT_NEEDED.format("a tunnel has one name"),
    "retransmit-timeout": NOT_NEEDED.format("the times of the RFCs are used"),
    "retransmit-interval": NOT_NEEDED.format("the times of the RFCs are used"),
    "ikepad": NOT_NEEDED.format("messages are padded as the RFCs say"),
    "me_peerid": "vpnd has no mediation: both ends must reach each other",
    "mediation": "vpnd has no mediation: both ends must reach each other",
    "mediated_by": "vpnd has no mediation: both ends must reach each other",
    "modecfgdns": "vpnd gives no addresses or name servers to its peers",
    "modecfgdomains": "vpnd gives no addresses or name servers to its peers",
    "modecfgbanner": "vpnd has no mode config",
    "ignore-peer-dns": NOT_NEEDED.format("a peer gives no name servers"),
    "share-lease": "vpnd gives no addresses or name servers to its peers",
    "xauthby": "vpnd has pre-shared keys alone, no XAuth",
    "xauthfail": "vpnd has pre-shared keys alone, no XAuth",
    "username": "vpnd has pre-shared keys alone, no XAuth",
    "auth2": "vpnd has one authentication, by a pre-shared key",
    "id2": "vpnd has one authentication, by a pre-shared key",
    "sendca": NOT_NEEDED.format("there are no certificates, only keys"),
    "cat": "vpnd translates no addresses: a firewall rule on the tunnel's interface does",
    "hostaddrfamily": NOT_NEEDED.format("the address says it"),
    "clientaddrfamily": NOT_NEEDED.format("the ranges say it"),
    "interface-ip": "give the tunnel's interface the address by your own means, or use the health check",
    "redirect-to": "vpnd has no IKE redirect",
    "accept-redirect-to": "vpnd has no IKE redirect",
    "iptfs": "vpnd has no IP-TFS: leave it out at the peer too",
    "iptfs-packet-size": "vpnd has no IP-TFS: leave it out at the peer too",
    "iptfs-max-queue-size": "vpnd has no IP-TFS: leave it out at the peer too",
    "iptfs-drop-time": "vpnd has no IP-TFS: leave it out at the peer too",
    "iptfs-reorder-window": "vpnd has no IP-TFS: leave it out at the peer too",
    "iptfs-init-delay": "vpnd has no IP-TFS: leave it out at the peer too",
    "iptfs-fragmentation": "vpnd has no IP-TFS: leave it out at the peer too",
    "ppk-ids": "vpnd has no post-quantum keys (RFC 8784): the peer must not require one",
    "ms-dh-downgrade": NOT_NEEDED.format("a peer that asks for the IKE SA's group in a rekey gets it"),
    "cisco-split": "vpnd has no Cisco Unity extensions",
    "mark-in": "vpnd sets no marks: each tunnel has an interface of its own, which rules can match",
    "mark-out": "vpnd sets no marks: each tunnel has an interface of its own, which rules can match",
    "clones": "vpnd makes one SA pair for each mapping",
    "send-supported-auth-methods": NOT_NEEDED.format("there is one method, pre-shared keys"),
    "ipsec-max-packets": "vpnd counts bytes and seconds, no packets",
    "ikefrag": NOT_NEEDED.format("IKE messages are fragmented where the peer can"),
    "ike-frag": NOT_NEEDED.format("IKE messages are fragmented where the peer can"),
    "auth": "vpnd has ESP alone: let the peer use it",
    "subnetwithin": "write the ranges of the rule",
    "lifepackets": "vpnd counts bytes and seconds, no packets",
    "ah": "vpnd has ESP alone: let the peer use it",
    "phase2": "vpnd has ESP alone: let the peer use it",
}
"""What a key means that is not taken over; of `left...` and `right...` the rest of the word."""

QUIET = {
    "mobike": ("no",),
    "fragmentation": ("yes",),
    "compress": ("no",),
    "installpolicy": ("yes",),
    "closeaction": ("none",),
    "rekey": ("yes",),
    "keyingtries": ("%forever", "0"),
    "phase2": ("esp",),
    "narrowing": ("no",),
    "initial-contact": ("yes",),
}

IKEV1_WORDS = frozenset({"no", "never", "permit", "ikev1"})


@dataclass(slots=True)
class Section:
    """`conn NAME`: entries in order; a key may stand in it once, but `also`."""

    kind: str
    name: str
    place: Place
    entries: list[Entry] = field(default_factory=list)


def read(path: Path, reader: Reader, local: str | None = None) -> Found:
    """All connections of a file and of what it includes. Raises Broken.

    `local`: this machine's address, where `left` and `right` do not say which of them it is.
    """
    sections = list(_sections(path, reader, 0))
    conns = {section.name: section for section in sections if section.kind == "conn"}
    found = Found(remarks=reader.remarks)
    named_by_also = {name for section in conns.values() for name in _also(section)}
    for section in sections:
        if section.kind == "conn" and section.name != DEFAULT:
            entries = _inherited(section, conns, reader)
            for made in _Conn(section, entries, reader.remarks, local).made(section.name in named_by_also):
                found.add(made)
        elif section.kind != "conn":
            for entry in section.entries:
                text = f"{SETUP}: left out" if section.kind == "config" else "vpnd has no certificates"
                reader.remarks.add(entry.place, entry.line, text)
    return found


# --------------------------------------------------------------------------------------- the file


def _sections(path: Path, reader: Reader, depth: int) -> Iterator[Section]:
    section: Section | None = None
    for number, raw in enumerate(reader.text(path).split("\n"), 1):
        place, line = Place(str(path), number), _without_comment(raw)
        if not line.strip():
            continue
        if not line[0].isspace():
            words_ = line.split(None, 1)
            if words_[0] == "include" and len(words_) == 2:
                if section is not None:
                    yield section
                    section = None
                for inner in reader.included(words_[1].strip().strip('"'), place, depth):
                    yield from _sections(inner, reader, depth + 1)
                continue
            if section is not None:
                yield section
                section = None
            if words_[0] == "version":
                continue
            if words_[0] not in ("conn", "config", "ca") or len(words_) != 2:
                raise Broken(place, "a line without indentation is `conn NAME`, `config setup` or `include`")
            section = Section(words_[0], words_[1].strip().strip('"'), place)
            continue
        if section is None:
            words_ = line.split(None, 1)
            if words_[0] == "include" and len(words_) == 2:
                for inner in reader.included(words_[1].strip().strip('"'), place, depth):
                    yield from _sections(inner, reader, depth + 1)
                continue
            raise Broken(place, "an indented line stands in no section")
        key, sign, value = line.strip().partition("=")
        if not sign or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*\s*", key):
            raise Broken(place, "this is no `key=value`")
        word = re.sub(r"^(left|right)-", r"\1", key.strip().lower())
        section.entries.append(Entry(word, _unquoted(value.strip(), place), place))
    if section is not None:
        yield section


def _without_comment(line: str) -> str:
    """The line up to a `#` that begins a word and is not in quotes."""
    quoted = False
    for at, sign in enumerate(line):
        if sign == '"':
            quoted = not quoted
        elif sign == "#" and not quoted and (at == 0 or line[at - 1].isspace()):
            return line[:at]
    return line


def _unquoted(value: str, place: Place) -> str:
    if value[:1] in ('"', "{") and value[:1] == '"':
        if len(value) < 2 or not value.endswith('"'):
            raise Broken(place, "a quote is not closed")
        return value[1:-1]
    return value


def _also(section: Section) -> list[str]:
    return [
        name
        for entry in section.entries
        if entry.key == "also"
        for name in re.split(r"[\s,]+", entry.value)
        if name
    ]


def _inherited(section: Section, conns: dict[str, Section], reader: Reader) -> dict[str, Entry]:
    """What holds for a section: its own, then what it takes by `also`, then `%default`."""
    found: dict[str, Entry] = {}
    waiting, seen = [section], {section.name}
    while waiting:
        one = waiting.pop(0)
        names = _also(one)
        reader.inherits(section.place, len(names) + (0 if one is section else len(one.entries)))
        for entry in one.entries:
            if entry.key != "also":
                found.setdefault(entry.key, entry)
        for name in names:
            if name not in conns:
                text = f"there is no conn {name}: nothing is taken from it"
                reader.remarks.add(one.place, f"also={name}", text)
            elif name not in seen and len(seen) < MAX_ALSO:
                seen.add(name)
                waiting.append(conns[name])
    default = conns[DEFAULT].entries if DEFAULT in conns else []
    reader.inherits(section.place, len(default))
    for entry in default:
        found.setdefault(entry.key, entry)
    return found


# ------------------------------------------------------------------------------------ a connection


class _Conn:
    """One `conn`."""

    def __init__(
        self, section: Section, entries: dict[str, Entry], remarks: Remarks, local: str | None
    ) -> None:
        self._section, self._entries, self._remarks = section, entries, remarks
        self._used: set[str] = set()
        self._here, self._there = self._sides(local)

    def made(self, is_base: bool) -> list[Connection]:
        """The connection; nothing for one that is there for others, or needs what vpnd has not."""
        if self._value("auto") == "ignore" or (is_base and not self._value(self._there)):
            return []
        if not self._uses_a_key() or not self._is_a_tunnel():
            return []
        made = Connection(self._section.name, self._section.place)
        self._addresses(made)
        self._version(made)
        self._algorithms(made)
        self._times(made)
        self._choices(made)
        made.rules = self._rules(made)
        for entry in self._entries.values():
            if entry.key not in self._used:
                self._tell(entry)
        return [made]

    def _sides(self, local: str | None) -> tuple[str, str]:
        left, right = self._value("left"), self._value("right")
        wanted = (local, *OWN)
        if (right in wanted and left not in wanted) or (left in ANY and right not in ANY and right):
            return "right", "left"
        return "left", "right"

    def _value(self, *keys: str) -> str:
        """The value of the first key that there is; it counts as taken over."""
        for key in keys:
            if key in self._entries:
                self._used.add(key)
                return self._entries[key].value
        return ""

    def _entry(self, key: str) -> Entry:
        return self._entries.get(key) or Entry(key, "", self._section.place)

    def _say(self, key: str, text: str) -> None:
        entry = self._entry(key)
        self._remarks.add(entry.place, f"{self._section.name}: {entry.line}", text)

    # -------------------------------------------------------------------------------- parts

    def _uses_a_key(self) -> bool:
        methods = {self._value("authby"), self._value("leftauth"), self._value("rightauth")} - {""}
        for method in methods:
            if not {"secret", "psk", "ike", "any"} & set(re.split(r"[|,\s]+", method)):
                key = next(k for k in ("authby", "leftauth", "rightauth") if self._value(k) == method)
                self._say(key, "vpnd has pre-shared keys alone: agree on a key with the peer; left out")
                return False
        by_certificate = [key for key in self._entries if re.fullmatch(r"(left|right)(cert|rsasigkey)", key)]
        if not methods and by_certificate:
            self._say(
                by_certificate[0], "vpnd has pre-shared keys alone: agree on a key with the peer; left out"
            )
            return False
        return True

    def _is_a_tunnel(self) -> bool:
        kind = self._value("type") or "tunnel"
        if kind != "tunnel":
            self._say("type", "vpnd has tunnel mode alone: left out; let the peer use tunnel mode")
        return kind == "tunnel"

    def _addresses(self, made: Connection) -> None:
        for end, side in (("local", self._here), ("remote", self._there)):
            value = self._value(side).strip()
            if value not in ANY | OWN and value:
                first = re.split(r"[,\s]+", value)[0].lstrip("%")
                if first != value:
                    self._say(side, f"vpnd has one address of each end: {first} is taken")
                setattr(made, f"{end}_address", first)
            written = self._value(f"{side}id")
            if written in ("", "%any", "%fromcert", "%none", "%null"):
                continue
            found = words.identity(written)
            if found is None:
                text = (
                    'vpnd has addresses and domain names as identities, and "@TEXT": choose one at both ends'
                )
                self._say(f"{side}id", text)
            setattr(made, f"{end}_id", found)

    def _version(self, made: Connection) -> None:
        exchange, ikev2 = self._value("keyexchange"), self._value("ikev2")
        made.ikev2 = (ikev2 or exchange).lower() not in IKEV1_WORDS
        made.aggressive = words.yes(self._value("aggressive", "aggrmode")) is True
        if ikev2 == "propose":
            self._say("ikev2", "vpnd has one version a tunnel: ikev2 is taken")

    def _algorithms(self, made: Connection) -> None:
        ike, esp = self._value("ike"), self._value("esp", "phase2alg")
        key = "esp" if "esp" in self._entries else "phase2alg"
        made.ike = words.proposals(ike, self._entry("ike").place, self._remarks, esp=False)
        made.esp = words.proposals(esp, self._entry(key).place, self._remarks, esp=True)
        if not made.ike.encryption:
            made.ike = words.USUAL_IKE
        if not made.esp.encryption:
            made.esp = words.USUAL_ESP
        group, pfs = self._value("pfsgroup").lower(), self._value("pfs").lower()
        if group in words.GROUPS:
            made.esp = replace(made.esp, groups=[words.GROUPS[group]])
        elif pfs == "no":
            made.esp = replace(made.esp, groups=[])
        elif pfs == "yes" and not made.esp.groups:
            # libreswan takes the groups of IKE then.
            made.esp = replace(made.esp, groups=list(made.ike.groups))
        if (esn := words.yes(self._value("esn"))) is not None:
            made.esp = replace(made.esp, esn={esn})

    def _times(self, made: Connection) -> None:
        made.ike_lifetime = self._time("ikelifetime")
        made.esp_lifetime = self._time("salifetime", "lifetime", "keylife")
        amount = re.fullmatch(r"(\d{1,15})\s*([KMGT]?i?B?)", self._value("lifebytes", "ipsec-max-bytes"))
        if amount is not None:
            scale = {"": 1, "B": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}[amount[2][:1]]
            made.kilobytes = max(1, int(amount[1]) * scale // 1024)
        delay, timeout = self._time("dpddelay"), self._time("dpdtimeout")
        if timeout is not None or delay is not None:
            made.dpd = timeout or (delay or 0) * 3

    def _time(self, *keys: str) -> int | None:
        value = self._value(*keys)
        if not value:
            return None
        found = words.seconds(value)
        if found is None:
            key = next(key for key in keys if key in self._entries)
            self._say(key, "this is no time: write seconds, or a number with s, m, h or d")
        return found

    def _choices(self, made: Connection) -> None:
        auto = self._value("auto")
        made.negotiation = {"start": "active", "up": "active", "route": "traffic-triggered"}.get(
            auto, "passive"
        )
        made.negotiation = "traffic-triggered" if auto == "ondemand" else made.negotiation
        action = self._value("dpdaction")
        if action == "none":
            made.dpd = 0
        elif action:
            made.dpd_action = "disconnect" if action == "clear" else "retry"
        made.udp = words.yes(self._value("encapsulation", "forceencaps")) is True
        made.sha256_96 = words.yes(self._value("sha2-truncbug", "sha2_truncbug", "sha256_96")) is True
        window = self._value("replay-window", "replay_window")
        made.replay_window = int(window) if window.isdecimal() and len(window) <= 6 else None

    def _rules(self, made: Connection) -> list[Rule]:
        narrowed = {end: self._protoport(side) for end, side in (("l", self._here), ("r", self._there))}
        protocol = narrowed["l"][0] or narrowed["r"][0]
        local = self._networks(self._here, made.local_address)
        remote = self._networks(self._there, made.remote_address)
        return [Rule(local, remote, protocol, narrowed["l"][1], narrowed["r"][1])] if local and remote else []

    def _networks(self, side: str, host: str | None) -> list[str]:
        written = self._value(f"{side}subnet", f"{side}subnets")
        if not written:
            try:
                return [str(ip_address(host or "")) + ("/32" if ":" not in (host or "") else "/128")]
            except ValueError:
                text = "the address of this end is its range, and it is not known: write it as a rule's range"
                self._remarks.add(self._section.place, f"{self._section.name}: {side}subnet", text)
                return []
        found: dict[str, None] = {}
        each = re.split(r"[\s,]+", written.strip("{} "))
        entry = self._entry(f"{side}subnet" if f"{side}subnet" in self._entries else f"{side}subnets")
        bounded(each, entry.place, entry.key)
        for one in each:
            text = one.partition("[")[0].removeprefix("vhost:").removeprefix("vnet:")
            network = words.network(text)
            if network is None:
                self._say(f"{side}subnet", f"{one} is no CIDR block: write the ranges that it means")
            else:
                found[network] = None
        return list(found)

    def _protoport(self, side: str) -> tuple[str | None, str | None]:
        written = self._value(f"{side}protoport")
        if not written:
            return None, None
        name, _, ports = written.partition("/")
        protocol, port = words.protocol(name), words.port(ports)
        port = None if port == "0" else port
        if protocol is None or (ports not in ("", "%any", "%opaque", "0") and port is None):
            self._say(
                f"{side}protoport", "protocol and port are numbers, or known words: write them in the rule"
            )
        return protocol, port

    def _tell(self, entry: Entry) -> None:
        if entry.value.strip().lower() in QUIET.get(entry.key, ()):
            return
        word = re.sub(r"^(left|right)", "", entry.key)
        text = MEANINGS.get(entry.key) or MEANINGS.get(word, UNKNOWN)
        self._remarks.add(entry.place, f"{self._section.name}: {entry.line}", text)
