"""What a change of the configuration costs: the class of each key, and of each tunnel between two of them.

`CLASSES` is the one table. A reload applies each tunnel's change by its class; a plan prints the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import total_ordering
from types import MappingProxyType

from vpnd.config.compile import compile_gateway, describe_compiled
from vpnd.config.configuration import Configuration
from vpnd.config.load import Loaded
from vpnd.model.policy import PeerPolicy, TunnelPolicy
from vpnd.model.secret import Secret


@total_ordering
class ChangeClass(Enum):
    """What a change costs, the cheapest first; of several changes of a tunnel the dearest counts."""

    LIVE = "live"
    """In place: nothing is negotiated."""
    NEXT_START = "next start"
    """It holds from the next start of vpnd on."""
    NEXT_SA = "next SA"
    """It holds from the next rekey or authentication on."""
    REKEY = "rekey"
    """Successors of the ESP SAs are negotiated at once, each before its predecessor goes."""
    NEW_IKE_SA = "new IKE SA"
    """The IKE SA has a successor at once, before it goes: by a rekey where only its algorithms change, which
    leaves the ESP SAs as they are, else by another one beside it, with ESP SAs of its own."""
    INTERFACE = "interface"
    """The interface is renamed, and nothing else happens to it. Where the kernel cannot rename one that is up
    (before Linux 6.2) it is made again, and everything is negotiated again."""
    BREAK = "break"
    """DELETE, and everything is negotiated again."""

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, ChangeClass):
            return NotImplemented
        order = list(ChangeClass)
        return order.index(self) < order.index(other)


LIVE, NEXT_START = ChangeClass.LIVE, ChangeClass.NEXT_START
NEXT_SA, REKEY = ChangeClass.NEXT_SA, ChangeClass.REKEY
NEW_IKE_SA, INTERFACE, BREAK = ChangeClass.NEW_IKE_SA, ChangeClass.INTERFACE, ChangeClass.BREAK

CLASSES: Mapping[str, ChangeClass] = MappingProxyType(
    {
        "gateway.name": LIVE,
        # One address of each IP version is received on, by IKE and by either engine: no IKE SA from another
        # stands beside what is there. Few peers would take it: who names the old address does not hear the
        # new one, and a vpnd that takes any refuses an identity that lives elsewhere (E-ID-TAKEN).
        "gateway.address": BREAK,
        "gateway.type": LIVE,
        "gateway.vpc": LIVE,
        "gateway.region": LIVE,
        "gateway.max_tunnels": LIVE,
        "gateway.engine": NEXT_START,
        "gateway.capture": LIVE,
        "metrics.listen": LIVE,
        "api.listen": LIVE,
        "api.certificate": LIVE,
        "api.key": LIVE,
        "customer_gateways.NAME.address": BREAK,
        "tunnels.NAME.customer_gateway": LIVE,  # a name; the address behind it has its own class
        "tunnels.NAME.pre_shared_key": NEXT_SA,
        "tunnels.NAME.next_pre_shared_key": NEXT_SA,
        "tunnels.NAME.retire_after": LIVE,
        "tunnels.NAME.negotiation": LIVE,
        "tunnels.NAME.communication": BREAK,
        "tunnels.NAME.routes": LIVE,
        "tunnels.NAME.priority": LIVE,
        "tunnels.NAME.interface": INTERFACE,
        "tunnels.NAME.profile": LIVE,  # what it is the default of has its own class
        "tunnels.NAME.description": LIVE,
        "tunnels.NAME.enabled": BREAK,  # false: as `vpnctl down`; true costs nothing
        "tunnels.NAME.diagnose": LIVE,
        "tunnels.NAME.mtu": LIVE,
        "tunnels.NAME.mss": LIVE,
        "tunnels.NAME.spd.local": REKEY,
        "tunnels.NAME.spd.remote": REKEY,
        "tunnels.NAME.spd.protocol": REKEY,
        "tunnels.NAME.spd.local_port": REKEY,
        "tunnels.NAME.spd.remote_port": REKEY,
        "tunnels.NAME.ike.version": BREAK,
        "tunnels.NAME.ike.negotiation_mode": BREAK,
        "tunnels.NAME.ike.encryption": NEW_IKE_SA,
        "tunnels.NAME.ike.integrity": NEW_IKE_SA,
        "tunnels.NAME.ike.dh_group": NEW_IKE_SA,
        "tunnels.NAME.ike.local_id": NEW_IKE_SA,
        "tunnels.NAME.ike.remote_id": NEW_IKE_SA,
        "tunnels.NAME.ike.lifetime": NEXT_SA,
        "tunnels.NAME.ike.rekey_margin": NEXT_SA,
        "tunnels.NAME.ike.rekey_fuzz": NEXT_SA,
        "tunnels.NAME.ipsec.encryption": REKEY,
        "tunnels.NAME.ipsec.integrity": REKEY,
        "tunnels.NAME.ipsec.pfs": REKEY,
        "tunnels.NAME.ipsec.lifetime": NEXT_SA,
        "tunnels.NAME.ipsec.lifetime_kb": NEXT_SA,
        "tunnels.NAME.ipsec.encapsulation": NEW_IKE_SA,
        "tunnels.NAME.ipsec.rekey_margin": NEXT_SA,
        "tunnels.NAME.ipsec.rekey_fuzz": NEXT_SA,
        "tunnels.NAME.ipsec.esn": REKEY,
        "tunnels.NAME.ipsec.replay_window": NEXT_SA,
        "tunnels.NAME.ipsec.sha256_96": REKEY,
        "tunnels.NAME.dpd.enabled": LIVE,
        "tunnels.NAME.dpd.timeout": LIVE,
        "tunnels.NAME.dpd.action": LIVE,
        "tunnels.NAME.health_check.enabled": LIVE,
        "tunnels.NAME.health_check.local": LIVE,
        "tunnels.NAME.health_check.remote": LIVE,
        "tunnels.NAME.health_check.interval_ms": LIVE,
        "tunnels.NAME.health_check.timeout_ms": LIVE,
        "tunnels.NAME.health_check.failures": LIVE,
        "tunnels.NAME.health_check.recoveries": LIVE,
        # The numbers are written in the offers of both phases.
        "tunnels.NAME.sm_numbers.sm4_ikev1_phase1": NEW_IKE_SA,
        "tunnels.NAME.sm_numbers.sm4_ikev1_esp": NEW_IKE_SA,
        "tunnels.NAME.sm_numbers.sm4_ikev2": NEW_IKE_SA,
        "tunnels.NAME.sm_numbers.sm3_ikev1_hash": NEW_IKE_SA,
        "tunnels.NAME.sm_numbers.sm3_ikev1_esp": NEW_IKE_SA,
        "tunnels.NAME.sm_numbers.sm3_ikev2_integ": NEW_IKE_SA,
        "tunnels.NAME.sm_numbers.sm3_ikev2_prf": NEW_IKE_SA,
        "tunnels.NAME.sm_numbers.sm3_icv_length": NEW_IKE_SA,
    }
)
"""The class of every key, by its path in the file; NAME stands for any name. A test walks the schema."""

PEER_ADDRESS = "customer_gateway.address"
"""The path within a tunnel of its peer's address, which stands in another table."""

COSTS: Mapping[ChangeClass, str] = {
    LIVE: "nothing: applied in place",
    NEXT_START: "nothing: it holds from the next start of vpnd on",
    NEXT_SA: "nothing: it holds from the next rekey or authentication on",
    REKEY: "nothing: each successor is negotiated before its predecessor goes",
    NEW_IKE_SA: "nothing: a new IKE SA is negotiated, and the old one goes after that",
    INTERFACE: "nothing where the kernel renames what is up (Linux 6.2), else packets, until everything is"
    " negotiated again, and what others have set on the interface",
    BREAK: "packets, from its DELETE until everything is negotiated again",
}

MOVED = (
    "packets, from its DELETE until everything is negotiated again from the new address, which the peer has"
    " to accept, and what others have set on the interface"
)
"""What it costs that the address of this machine is another."""

Kind = Enum("Kind", {"ADDED": "added", "CHANGED": "changed", "REMOVED": "removed"})


@dataclass(frozen=True, slots=True)
class KeyChange:
    """One key with its effective values, before and after: words, numbers, lists, None where there is none.

    `key` is the path in the tunnel's table, such as `ike.lifetime`, or in the file for the gateway's own
    (`gateway.address`). Of a pre-shared key the values are its fingerprints.
    """

    key: str
    before: object
    after: object
    change_class: ChangeClass


@dataclass(frozen=True, slots=True)
class TunnelDifference:
    """What becomes of one tunnel. `keys` is empty for one that comes or goes.

    The mappings are counted: those that come, those that go, and those that stay and are not touched by it.
    """

    name: str
    kind: Kind
    change_class: ChangeClass
    keys: tuple[KeyChange, ...] = ()
    mappings_added: int = 0
    mappings_removed: int = 0
    mappings_kept: int = 0
    is_remade: bool = False
    """Whether the tunnel is removed and made again, with its interface, whatever the kernel can."""
    is_moved: bool = False
    """Whether it is negotiated from another address of this machine."""

    @property
    def summary(self) -> str:
        """Which keys change, and the class, for an event."""
        keys = ", ".join(change.key for change in self.keys)
        return f"its configuration changed ({keys}): {self.change_class.value}, its interface stays"

    @property
    def cost(self) -> str:
        """What it costs, in a few words."""
        if self.kind is Kind.ADDED:
            return "nothing: it is new"
        if self.kind is Kind.REMOVED:
            return "its traffic: DELETE to the peer, and its interface goes"
        if any(change.key == "enabled" and change.after is False for change in self.keys):
            return "its traffic: DELETE to the peer, and it stays down"
        if self.is_moved:
            return MOVED
        text = COSTS[self.change_class]
        if self.change_class is REKEY and (self.mappings_added or self.mappings_removed):
            counts = f"{self.mappings_added} mappings added, {self.mappings_removed} removed"
            return f"{text}; {counts}, {self.mappings_kept} stay"
        return text


@dataclass(frozen=True, slots=True)
class Difference:
    """What leads from one configuration to another: tunnels in the order of the new one, removed ones last.

    `unchanged` are the names of the tunnels that are not touched.
    """

    gateway: tuple[KeyChange, ...]
    tunnels: tuple[TunnelDifference, ...]
    unchanged: tuple[str, ...]

    def get(self, name: str) -> TunnelDifference | None:
        """What becomes of this tunnel; None if nothing does."""
        return next((one for one in self.tunnels if one.name == name), None)


def class_of(key: str) -> ChangeClass:
    """The class of a key by its path in a tunnel's table. Raises KeyError for one that there is not."""
    if key == PEER_ADDRESS:
        return CLASSES["customer_gateways.NAME.address"]
    return REKEY if key == "spd" else CLASSES[f"tunnels.NAME.{key.removesuffix('.name')}"]


def classify(old: Loaded, new: Loaded) -> Difference:
    """What a change from `old` to `new` does to each tunnel, its class, and what it costs.

    Raises ConfigurationInvalid if one of the two has errors.
    """
    before = {policy.name: policy for policy in compile_gateway(old).tunnels}
    after = {policy.name: policy for policy in compile_gateway(new).tunnels}
    found, unchanged = [], []
    for name, policy in after.items():
        if name not in before:
            found.append(TunnelDifference(name, Kind.ADDED, LIVE, (), len(policy.peer.children)))
            continue
        change = compare(old, new, before[name], policy)
        if change.keys or before[name] != policy:
            found.append(change)
        else:
            unchanged.append(name)
    gone = [before[name] for name in before if name not in after]
    found += [TunnelDifference(p.name, Kind.REMOVED, BREAK, (), 0, len(p.peer.children)) for p in gone]
    gateway = tuple(_gateway_keys(old.configuration, new.configuration))
    return Difference(gateway, tuple(found), tuple(unchanged))


def compare(old: Loaded, new: Loaded, before: TunnelPolicy, after: TunnelPolicy) -> TunnelDifference:
    """What becomes of one tunnel that both have; its policies are those that they were compiled to."""
    keys = tuple(_keys(old, new, before, after))
    had, has = _mappings(before.peer), _mappings(after.peer)
    classes = [change.change_class for change in keys if change.key != "enabled"]
    if had != has:
        classes.append(REKEY)  # also where routes of another IP version have made them
    is_moved = before.peer.local_address != after.peer.local_address
    if is_moved:
        classes.append(CLASSES["gateway.address"])
    is_remade = max(classes, default=LIVE) >= BREAK
    dearest = max((change.change_class for change in keys), default=LIVE)
    counts = len(has - had), len(had - has), len(had & has)
    found = max(dearest, *classes, LIVE)
    return TunnelDifference(before.name, Kind.CHANGED, found, keys, *counts, is_remade, is_moved)


def _mappings(peer: PeerPolicy) -> frozenset[tuple[object, ...]]:
    return frozenset(child.selects for child in peer.children)


def _keys(old: Loaded, new: Loaded, one: TunnelPolicy, other: TunnelPolicy) -> Iterator[KeyChange]:
    """The keys of a tunnel whose effective values differ."""
    name, order_only = one.name, _mappings(one.peer) == _mappings(other.peer)
    was, now = old.configuration.tunnels[name], new.configuration.tunnels[name]
    for key, secrets in (
        ("pre_shared_key", (was.secret, now.secret)),
        ("next_pre_shared_key", (was.next_secret, now.next_secret)),
    ):
        if secrets[0] != secrets[1]:
            before, after = map(_fingerprint, secrets)
            yield KeyChange(key, before, after, class_of(key))
    tables = [dict(_flat(describe_compiled(*each))) for each in ((old, one), (new, other))]
    for key in dict.fromkeys([*tables[0], *tables[1]]):
        values = tables[0].get(key), tables[1].get(key)
        if values[0] != values[1]:
            in_place = (key == "spd" and order_only) or (key == "enabled" and values[1] is True)
            yield KeyChange(key, *values, LIVE if in_place else class_of(key))


def _fingerprint(secret: Secret | None) -> str | None:
    return secret.fingerprint() if secret else None


def _flat(table: Mapping[str, object], before: str = "") -> Iterator[tuple[str, object]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield before + key, value


def _gateway_keys(old: Configuration, new: Configuration) -> Iterator[KeyChange]:
    """The keys of the gateway's own tables that differ."""
    for section in ("gateway", "metrics", "api"):
        tables = [getattr(one, section) for one in (old, new)]
        before, after = ({} if one is None else one.model_dump(mode="json") for one in tables)
        for key in dict.fromkeys([*before, *after]):
            values = before.get(key), after.get(key)
            if values[0] != values[1]:
                yield KeyChange(f"{section}.{key}", *values, CLASSES[f"{section}.{key}"])
