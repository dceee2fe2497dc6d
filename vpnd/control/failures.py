"""Failures that no pair of values explains: silence, the network, this machine, the peer's own will."""

from __future__ import annotations

from collections.abc import Callable

from vpnd.control.explanation import Explanation, Facts

# ----------------------------------------------------------------------------------- silence


def silent(facts: Facts) -> Explanation:
    sent = f": {facts['sent']} sent, {facts['received'] or 0} received" if facts["sent"] else ""
    return Explanation(
        facts.code,
        f"{facts.peer} does not answer{facts.during()}{sent}",
        "nothing",
        facts["detail"],
        also_possible=(
            "a firewall on the way drops UDP 500 or 4500",
            "the address is another machine's, or the machine is off",
            "the peer has no tunnel for our address, or another IKE version or mode, and keeps silent",
        ),
        change="allow UDP 500 and 4500 both ways, and compare both outer addresses with the peer's",
        try_=(f"vpnctl trace {facts.tunnel}", f"ping {facts['peer'] or 'PEER'}"),
    )


def port_closed(facts: Facts) -> Explanation:
    return Explanation(
        facts.code,
        f"nothing listens for IKE at {facts.peer}: ICMP port unreachable",
        facts["detail"] or "port unreachable",
        change="start the IKE daemon at the peer, or correct its address here",
        try_=(f"vpnctl up {facts.tunnel}",),
    )


def unreachable(facts: Facts) -> Explanation:
    return Explanation(
        facts.code,
        f"the network cannot reach {facts.peer}",
        facts.notify or facts["detail"] or "unreachable, says a router on the way or this machine",
        also_possible=("a firewall rejects the packets (administratively prohibited)",),
        change="check the route to the peer, and its address",
        try_=(f"ip route get {facts['peer'] or 'PEER'}",),
    )


def udp_4500(facts: Facts) -> Explanation:
    return Explanation(
        facts.code,
        f"{facts.peer} answers on UDP 500, and then not on UDP 4500{facts.during()}",
        "nothing, after it had answered the first message",
        f"a key with the fingerprint {facts['ours']}" if facts["ours"] else facts["detail"],
        also_possible=(
            "a router on the way drops IP fragments, and the message is longer than a packet",
            "the pre-shared keys differ, and the peer keeps silent about it",
        ),
        change="allow UDP 4500 both ways on every firewall between the two",
        try_=(f"vpnctl trace {facts.tunnel}",),
    )


# ------------------------------------------------------------------------ the peer's own will


def simple(
    what: str, change: str, also: tuple[str, ...] = (), tries: tuple[str, ...] = ("vpnctl trace {tunnel}",)
) -> Callable[[Facts], Explanation]:
    """A failure without two values to compare; `{peer}` and `{tunnel}` are put in."""

    def filled(text: str, facts: Facts) -> str:
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
        ("the pre-shared keys differ: IKEv1 then decrypts to nonsense", "a fault of one implementation"),
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


def local_socket(facts: Facts) -> Explanation:
    detail = facts["detail"] or ""
    if facts["errno"] == "EADDRNOTAVAIL":
        change, tries = "set gateway.address to an address that this machine has", ("ip address",)
    elif facts["errno"] == "EADDRINUSE":
        change, tries = "end the other program that has UDP 500 or 4500", ("ss -lunp",)
    else:
        change, tries = "run vpnd with CAP_NET_BIND_SERVICE, CAP_NET_RAW and CAP_NET_ADMIN", ("ss -lunp",)
    return Explanation(
        facts.code,
        "a socket could not be opened on this machine" + (f": {detail}" if detail else ""),
        we_have=facts["ours"],
        change=change,
        try_=tries,
    )
