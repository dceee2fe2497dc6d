"""When SAs are renewed: lifetimes of seconds at either end, and both ends asked for it at one moment."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.lab.lab import write
from tests.lab.plan import Plan
from tests.lab.strongswan import StrongSwan, swanctl_conf
from tests.lab.vici import Vici
from tests.lab.vpnd import Vpnd


def load_with(
    peer: StrongSwan, plan: Plan, connection: Mapping[str, object], child: Mapping[str, object]
) -> None:
    """Have strongSwan load a connection with these settings of swanctl.conf beside its usual ones."""
    peer.add(plan)
    text = swanctl_conf([plan])
    for anchor, settings in (("    dpd_delay = ", connection), ("        life_time = ", child)):
        before, found, behind = text.partition(anchor)
        if not found:
            raise ValueError(f"no line {anchor.strip()!r} in\n{text}")
        rest = behind if "life_time" not in settings else behind.partition("\n")[2]
        kept = found if rest is behind else ""
        indent = " " * (len(anchor) - len(anchor.lstrip()))
        text = before + "".join(f"{indent}{key} = {value}\n" for key, value in settings.items()) + kept + rest
    path = write(peer.directory / f"{plan.name}.conf", text, mode=0o600)
    peer.swanctl("--load-all", "--clear", "--noprompt", "--file", str(path))


def carrying(peer: StrongSwan, name: str) -> dict[str, str]:
    """strongSwan's numbers of the IKE SA and of the child that carry a connection's traffic now.

    By its name it would renew every SA that it still has of a connection, those that were replaced as well.
    """
    live = [(sa, child) for sa in peer.sas() for child in sa["child-sas"].values() if sa["name"] == name]
    sa, child = next(pair for pair in reversed(live) if pair[1]["state"] == "INSTALLED")
    return {"ike": sa["uniqueid"], "child": child["uniqueid"]}


class AtOnce:
    """Connections to both daemons, over which both are asked for a renewal within a millisecond."""

    def __init__(self, ours: Vpnd, peer: StrongSwan, name: str) -> None:
        self._name = name
        self._ids = carrying(peer, name)
        self._vici = Vici(peer.directory / "vici")
        self._api = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._api.settimeout(60)
        self._api.connect(str(ours.socket))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._api.close()
        self._vici.__exit__(kind, error, trace)

    def renew(self, sa: str, lead: float) -> None:
        """Ask vpnd and `lead` seconds later strongSwan for a renewal of `sa`, which is `child` or `ike`.

        Returns when both have answered.
        """
        body = json.dumps({"child": sa == "child", "ike": sa == "ike"})
        request = (
            f"POST /v1/tunnels/{self._name}/rekey HTTP/1.1\r\nHost: vpnd\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()
        self._api.sendall(request)
        time.sleep(lead)
        self._vici.begin("rekey", **{f"{sa}-id": self._ids[sa]})
        with suppress(RuntimeError):
            # Where vpnd was so fast that strongSwan has replaced its SA already, it has nothing to renew.
            self._vici.end()
        while self._api.recv(4096):
            pass
