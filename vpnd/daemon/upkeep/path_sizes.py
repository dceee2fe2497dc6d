"""What fits a tunnel's path: as routers and echo requests show it, for its interface, and told."""

from __future__ import annotations

from vpnd.daemon.events.event_text import impaired
from vpnd.daemon.events.journal import Journal
from vpnd.daemon.surroundings import Surroundings
from vpnd.datapath.mtu import mss
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.tunnel.commands import Impaired
from vpnd.tunnel.lifecycle import Tunnel
from vpnd.tunnel.mappings import Fault
from vpnd.tunnel.path_size import PathSized
from vpnd.tunnel.route_selection import RouteSelection
from vpnd.tunnel.tunnels import Tunnels


class PathSizes:
    """Of all tunnels."""

    def __init__(
        self, tunnels: Tunnels, selection: RouteSelection, journal: Journal, surroundings: Surroundings
    ) -> None:
        self._tunnels, self._selection = tunnels, selection
        self._journal, self._surroundings = journal, surroundings

    def follow(self, now: float, name: str) -> None:
        """The tunnel's interface may take packets of another length."""
        inner = self._surroundings.inner_mtu(name)
        if inner is not None:
            self._selection.set_limit(now, name, inner)

    def told(self, now: float, name: str, mtu: int) -> None:
        """The network says that the path to a tunnel's peer carries `mtu` bytes."""
        before = self._surroundings.inner_mtu(name)
        self._surroundings.path_changed(name, mtu)
        inner, tunnel = self._surroundings.inner_mtu(name), self._tunnels.get(name)
        self.follow(now, name)
        if tunnel is None or inner is None or before is None or inner >= before:
            return
        diagnosis = Diagnosis.of(
            Code.MTU, mtu=mtu, inner=inner, mss=mss(inner, _version(tunnel)), cause="icmp"
        )
        if not any(fault.diagnosis == diagnosis for fault, _ in tunnel.standing.faults):
            # What fits is sent from now on: this is worth knowing, and nothing is wrong.
            tunnel.standing.add(Fault(diagnosis, now), None)
            self._journal.failure(name, "path-mtu", diagnosis)

    def sized(self, now: float, sized: PathSized) -> None:
        """Echo requests have shown how large an inner packet gets through."""
        name, tunnel = sized.tunnel, self._tunnels.get(sized.tunnel)
        if tunnel is None:
            return
        if sized.passes >= sized.limit:
            known = tunnel.standing.others.get(Code.MTU)
            wanted = int(known.diagnosis.fact("ours") or 0) if known is not None else 0
            if known is not None and (sized.limit >= wanted or tunnel.policy.mtu is not None):
                self._say(now, tunnel, None)
            return
        mtu = self._surroundings.path_limited(name, sized.passes)
        if mtu is not None:
            segment = mss(sized.passes, _version(tunnel))
            found = Diagnosis.of(Code.MTU, mtu=mtu, inner=sized.passes, mss=segment, ours=sized.limit)
            self._say(now, tunnel, found)
            self.follow(now, name)

    def _say(self, now: float, tunnel: Tunnel, diagnosis: Diagnosis | None) -> None:
        if tunnel.standing.others.put(now, Code.MTU, diagnosis):
            if diagnosis is not None:
                tunnel.standing.add(Fault(diagnosis, now), None)
            impaired(self._journal, Impaired(tunnel.name, Code.MTU, diagnosis))


def _version(tunnel: Tunnel) -> int:
    return next((child.local.version for child in tunnel.policy.peer.children), 4)
