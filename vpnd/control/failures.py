"""Failures that no pair of values explains: silence, the network, this machine, the peer's own will."""

from __future__ import annotations

from collections.abc import Callable

from vpnd.control.explanation import Explanation, Facts
from vpnd.crypto.suites import ENCRYPTIONS
from vpnd.datapath.mtu import MINIMUM_MTU
from vpnd.model.text import printable

# ----------------------------------------------------------------------------------- silence


_KEEPS_SILENT = {
    "": "the peer has no tunnel for our address, or another IKE version or mode, and keeps silent",
    "ikev1": "the peer has no tunnel for our address, or another IKE version or negotiation mode, and keeps"
    " silent",
    "ikev2": "the peer has no tunnel for our address, or another IKE version, and keeps silent",
}


def silent(facts: Facts) -> Explanation:
    return Explanation(
        facts.code,
        f"{facts.peer} does not answer{facts.during()}{_counts(facts)}",
        "nothing",
        facts["detail"],
        also_possible=(
            "a firewall on the way drops UDP 500 or 4500",
            "the address is another machine's, or the machine is off",
            _KEEPS_SILENT.get(facts.about.version or "", _KEEPS_SILENT[""]),
        ),
        change="allow UDP 500 and 4500 both ways, and compare both outer addresses with the peer's",
        try_=(f"vpnctl trace {facts.tunnel}", f"ping {facts['peer'] or 'PEER'}"),
    )


_ICMP = {"port": "port unreachable", "prohibited": "administratively prohibited, says a firewall"}


def _counts(facts: Facts) -> str:
    """How much was sent and came, where it is known."""
    return f": {facts['sent']} sent, {facts['received'] or 0} received" if facts["sent"] else ""


def port_closed(facts: Facts) -> Explanation:
    return Explanation(
        facts.code,
        f"nothing listens for IKE at {facts.peer}: ICMP port unreachable",
        facts["detail"] or "port unreachable",
        change="start the IKE daemon at the peer, or correct its address here",
        try_=(f"vpnctl up {facts.tunnel}",),
    )


def unreachable(facts: Facts) -> Explanation:
    if facts["cause"] in ("prohibited", "forbidden_here"):
        return _firewalled(facts)
    if facts["cause"] == "no_route":
        return Explanation(
            facts.code,
            f"this machine has no route to {facts.peer}: nothing that is sent to it leaves",
            we_have="no route, not even a default route; or one that refuses (unreachable, blackhole)",
            also_possible=("the link to the peer is down, or has no address at present",),
            change=f"add a route to {facts.peer}, or a default route; or correct its address",
            try_=(f"ip route get {facts['peer'] or 'PEER'}", "ip route", "ip address"),
        )
    return Explanation(
        facts.code,
        f"the network cannot reach {facts.peer}",
        facts.notify or facts["detail"] or "unreachable, says a router on the way or this machine",
        change="check the route to the peer, and its address",
        try_=(f"ip route get {facts['peer'] or 'PEER'}",),
    )


def local_route(facts: Facts) -> Explanation:
    """The peer is reached by a route into a tunnel, or the kernel has not taken the tunnel's own routes."""
    if facts["cause"] == "into_tunnel":
        where, peer = facts["ours"] or "a tunnel's interface", facts["peer"] or "PEER"
        return Explanation(
            facts.code,
            f"the route to {facts.peer} leads into {where}, the interface of a tunnel that is not up: nothing"
            " leaves by it",
            we_have=f"route to {facts.peer}: by {where}",
            also_possible=("a routing daemon has learnt the route through the tunnel",),
            change=f"give {peer} a route of its own by the router outside"
            f' ("ip route add {peer} via ROUTER"), or remove the one into {where}',
            try_=(f"ip route get {peer} mark {MARK_OF_OURS}", f"ip route show dev {where}"),
        )
    detail = f": {facts['detail']}" if facts["detail"] else ""
    return Explanation(
        facts.code,
        f"the tunnel's routes could not be set up on this machine{detail}",
        change="look for another route or rule for the same range",
        try_=("ip route show table all", "ip rule"),
    )


MARK_OF_OURS = "0x7670"
"""The fwmark of what vpnd sends itself, as `ip` reads it."""


def _firewalled(facts: Facts) -> Explanation:
    """A firewall says that it does not let IKE through."""
    port, here = facts["port"] or "500", facts["cause"] == "forbidden_here"
    where = "this machine" if here else "the way, or at the peer,"
    return Explanation(
        facts.code,
        f"a firewall on {where} does not let UDP {port} through to {facts.peer}",
        "nothing: the packets do not leave this machine" if here else "ICMP: administratively prohibited",
        change="allow UDP 500 and 4500 both ways in the firewall of this machine"
        if here
        else "allow UDP 500 and 4500 both ways on every firewall between the two, and at the peer",
        try_=("nft list ruleset",) if here else (f"vpnctl trace {facts.tunnel}",),
    )


def udp_4500(facts: Facts) -> Explanation:
    said = _ICMP.get(facts["cause"] or "")
    return Explanation(
        facts.code,
        f"{facts.peer} answers on UDP 500, and then not on UDP 4500{facts.during()}{_counts(facts)}",
        f"ICMP: {said}, on UDP 4500" if said else "nothing, after it had answered the first message",
        f"a key with the fingerprint {facts['ours']}" if facts["ours"] else facts["detail"],
        also_possible=(
            "a router on the way drops IP fragments, and the message is longer than a packet",
            "the pre-shared keys differ, and the peer keeps silent about it",
        )
        if not said
        else (),
        change="allow UDP 4500 both ways on every firewall between the two",
        try_=(f"vpnctl trace {facts.tunnel}",),
    )


# ------------------------------------------------------------------------------ inner packets


def one_way(facts: Facts) -> Explanation:
    seconds = facts["seconds"] or "some"
    in_udp = facts["encapsulation"] == "udp"
    change = (
        "let UDP 4500 through both ways, and give the hosts behind the peer a route back to our ranges"
        if in_udp
        else 'set ipsec.encapsulation = "udp" here, or let IP protocol 50 (ESP) through both ways on every'
        " firewall; and give the hosts behind the peer a route back to our ranges"
    )
    return Explanation(
        facts.code,
        f"we send into the tunnel, and nothing comes back for {seconds} s, while the peer answers IKE",
        "nothing in ESP",
        f"ESP in {'UDP' if in_udp else 'IP protocol 50'}" if facts["encapsulation"] else None,
        also_possible=(
            "the peer does not forward what comes out of the tunnel, or its firewall drops it",
            "no host has the address that is asked for",
            "the traffic only goes one way, as that of syslog: then nothing is wrong",
        ),
        change=change,
        try_=(f"vpnctl show {facts.tunnel}", "at the peer: tcpdump -ni any esp or udp port 4500"),
    )


def no_forward(facts: Facts) -> Explanation:
    packets = "packets come out of the tunnel, and this machine does not forward them"
    if facts["cause"] == "forwarding":
        return Explanation(
            facts.code,
            f"{packets}: IP forwarding is off",
            change="turn it on, and keep it in /etc/sysctl.d: net.ipv4.ip_forward = 1 (IPv6:"
            " net.ipv6.conf.all.forwarding = 1)",
            try_=("sysctl -w net.ipv4.ip_forward=1",),
        )
    return Explanation(
        facts.code,
        f"{packets}: a firewall rule drops them, or there is no route to where they go",
        we_have=facts["detail"],
        change="accept forwarded packets from and to the tunnel's interface in the firewall of this machine",
        try_=("nft list ruleset", f"vpnctl show {facts.tunnel}"),
    )


def no_reply(facts: Facts) -> Explanation:
    return Explanation(
        facts.code,
        "packets come out of the tunnel and go on from this machine, and no answer comes back into it",
        we_have=facts["detail"],
        also_possible=(
            "the hosts behind this machine send their answers to another router",
            "their firewall drops what comes from the peer's ranges",
            "the traffic only goes one way, as that of syslog: then nothing is wrong",
        ),
        change="give the hosts behind this machine a route to the peer's ranges by way of it, and let their"
        " firewall answer",
        try_=("tcpdump -ni any host ADDRESS",),
    )


_CUT = frozenset({"sha256", "sm3"})
"""Of these both ends may have another length of what is left."""


def esp_icv(facts: Facts) -> Explanation:
    """Every packet of a peer that has proved its keys fails: it cuts the ICV to another length."""
    count = f"{facts['received']} packets" if facts["received"] else "the peer's packets"
    ours, changed = facts["ours"], "something on the way changes the packets"
    is_cut = ours is None or ours in _CUT
    change = "set ipsec.sha256_96 = true here for a peer that cuts SHA-256 to 96 bits, as old ones do"
    if facts["detail"] == "96":
        change = "set ipsec.sha256_96 = false here: the peer has 128 bits, as RFC 4868 says"
    elif ours == "sm3":
        change = "set sm_numbers.sm3_icv_length to the length that the peer has"
    elif not is_cut:
        change = "look for what changes packets between the two, such as a firewall that looks into ESP"
    what = f"{count} came and none passes the integrity check"
    return Explanation(
        facts.code,
        f"{what}: both ends cut its value to different lengths" if is_cut else what,
        "packets of another length" if is_cut else None,
        f"ipsec.{'encryption' if ours in ENCRYPTIONS else 'integrity'}: {ours}" if ours else None,
        also_possible=(changed,) if is_cut else (),
        change=change,
        try_=(f"vpnctl show {facts.tunnel}",),
    )


def health(facts: Facts) -> Explanation:
    ours, theirs = facts["ours"] or "our health-check address", facts["theirs"] or "the peer's"
    lost = f"{facts['sent']} probes in a row" if facts["sent"] else "the probes"
    return Explanation(
        facts.code,
        f"the tunnel is up, and the health check fails: {lost} from {ours} to {theirs} were not answered",
        "no echo reply through the tunnel",
        f"health_check.local: {ours}, health_check.remote: {theirs}",
        also_possible=(
            "the peer's policy has no selector for the two addresses",
            "ESP does not get through, while IKE does: see the counters",
        ),
        change=f"give the peer's tunnel interface the address {theirs}, let it answer echo requests, and"
        f" have it send to {ours} through the tunnel",
        try_=(f"vpnctl show {facts.tunnel}", f"vpnctl peer-config {facts.tunnel} --for strongswan"),
    )


def mtu(facts: Facts) -> Explanation:
    path, inner, mss = facts["mtu"], facts["inner"], facts["mss"]
    fits = f"inner packets of up to {inner or '?'} bytes fit, and TCP segments of {mss or '?'}"
    carries = f"the path to the peer carries {path or 'fewer'} bytes"
    try_ = (f"vpnctl doctor {facts.tunnel}", f"ping -M do -s SIZE {facts['peer'] or 'PEER'}")
    if facts["cause"] == "icmp":
        return Explanation(
            facts.code,
            f"{carries}, says a router on the way: {fits}",
            we_have="packets of that length from now on, and the MSS of TCP connections is lowered",
            change="nothing: what fits is sent",
            try_=try_,
        )
    value = inner or "BYTES"
    through = 'let ICMP "fragmentation needed" and fragments through on every firewall between the two'
    least = MINIMUM_MTU[6 if facts.about.carries_ipv6 else 4]
    change = f"set mtu = {value} in the tunnel's table here, and the same at the peer; or {through}"
    if inner is not None and inner.isdecimal() and int(inner) < least:
        change = f"{through}: what fits is less than the {least} bytes that an interface has at least"
    return Explanation(
        facts.code,
        f"small packets pass the tunnel and large ones vanish: {carries}; {fits}",
        "nothing: no router says that packets are too large",
        f"packets of up to {facts['ours']} bytes until then; the limit is {inner} from now on"
        if facts["ours"]
        else None,
        also_possible=(
            "a firewall on the way drops fragments, and the ICMP messages of packets that are too large",
            "the peer answers no larger ping: then a file that is fetched through the tunnel arrives",
        ),
        change=change,
        try_=try_,
    )


# ------------------------------------------------------------------------ the peer's own will


def simple(
    what: str, change: str, also: tuple[str, ...] = (), tries: tuple[str, ...] = ("vpnctl trace {tunnel}",)
) -> Callable[[Facts], Explanation]:
    """A failure without two values to compare; `{peer}` and `{tunnel}` are put in."""

    def filled(text: str, facts: Facts) -> str:
        text = text.replace("customer_gateways.NAME.address", facts.peer_key)
        return text.replace("{peer}", facts.peer).replace("{tunnel}", facts.tunnel)

    def explained(facts: Facts) -> Explanation:
        detail = f": {facts['detail']}" if facts["detail"] else ""
        notify = f" ({facts.notify})" if facts.notify else facts.during()
        return Explanation(
            facts.code,
            f"{facts.mapping()}{filled(what, facts)}{notify}{detail}",
            facts["theirs"] or facts.notify,
            facts["ours"],
            also_possible=also,
            change=filled(change, facts),
            try_=tuple(filled(text, facts) for text in tries),
        )

    return explained


def peer_dead(facts: Facts) -> Explanation:
    if facts.about.reconnects:
        change = "check the network and the peer: the tunnel is tried again by itself"
    else:
        change = (
            'check the network and the peer; dpd.action = "retry" connects again by itself,'
            ' "disconnect" waits for the peer, for vpnctl up or, if traffic-triggered, for traffic'
        )
    also = ("the peer restarted", "the way there is cut, or a NAT forgot it")
    return simple("{peer} stopped answering (dead peer detection)", change, also, ("vpnctl up {tunnel}",))(
        facts
    )


def syntax(facts: Facts) -> Explanation:
    theirs = facts.notify is not None
    what = (
        f"{facts.peer} could not read a message of ours"
        if theirs
        else f"{facts.peer} sent a message that we cannot use"
    )
    return simple(
        what,
        "keep the output of the command below, and look at the peer's log of the same moment",
        (
            *(
                ("the pre-shared keys differ: IKEv1 then decrypts to nonsense",)
                if facts.about.version != "ikev2"
                else ()
            ),
            "a fault of one implementation",
        ),
    )(facts)


def local_address(facts: Facts) -> Explanation:
    what = f"the tunnel's outer address {facts['detail'] or 'is gone from this machine'}"
    change = "give the machine the address of gateway.address again, or set it to one that the machine has"
    if not facts["ours"]:
        what = 'gateway.address is "auto", and this machine has no default route'
        change = "nothing if one comes, by DHCP for instance; else add one, or set gateway.address"
    return Explanation(
        facts.code,
        what,
        we_have=facts["ours"],
        change=change,
        try_=("ip route show default", "ip address"),
    )


def local_interface(facts: Facts) -> Explanation:
    """What kept the kernel from making the interface: its name is taken, or what it needs is not allowed."""
    detail, name = facts["detail"] or "", facts["ours"]
    what = f"the tunnel has no interface{f' {name}' if name else ''} on this machine"
    taken = facts["cause"] == "taken"
    change = (
        "give the tunnel another interface name (interface), or remove the interface that has this one"
        if taken
        else "run vpnd with CAP_NET_ADMIN and /dev/net/tun"
    )
    return Explanation(
        facts.code,
        what + (f": {detail}" if detail else ""),
        we_have=f"interface: {name}" if name else None,
        change=change,
        try_=(f"ip -d link show {name}",) if taken and name else ("ip -d link",),
    )


def local_socket(facts: Facts) -> Explanation:
    detail = facts["detail"] or ""
    if facts["errno"] == "EADDRNOTAVAIL":
        change, tries = "set gateway.address to an address that this machine has", ("ip address",)
    elif facts["errno"] == "EADDRINUSE":
        other = printable(facts["owner"]) if facts["owner"] else "the other program that has UDP 500 or 4500"
        change, tries = f"end {other}, or let it listen elsewhere", ("ss -lunp",)
    else:
        change, tries = "run vpnd with CAP_NET_BIND_SERVICE, CAP_NET_RAW and CAP_NET_ADMIN", ("ss -lunp",)
    return Explanation(
        facts.code,
        "a socket could not be opened on this machine" + (f": {detail}" if detail else ""),
        we_have=facts["ours"],
        change=change,
        try_=tries,
    )
