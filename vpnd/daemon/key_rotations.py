"""How the pre-shared key of a tunnel is replaced by the next one, step by step, as the API asks for it."""

from __future__ import annotations

from vpnd.config.configuration import Tunnel as ConfiguredTunnel
from vpnd.config.configuration import dotted
from vpnd.config.secrets import suspicions
from vpnd.control.operations import Conflict, InvalidConfiguration, NegotiationFailed
from vpnd.control.schema import KeyRemark, KeyStatus, KeyUse, RotateRequest
from vpnd.daemon.gateway import Gateway
from vpnd.host.clock import at_wall
from vpnd.ike.shared_keys import KeyInUse
from vpnd.model.policy import NegotiationMode
from vpnd.tunnel.lifecycle import Tunnel

KEY_FILE = "/etc/vpnd/psk/{}.next"
"""Where a next key is suggested to be."""


class KeyRotations:
    """Which step is possible, and what is known of a tunnel's keys."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def status(self, tunnel: Tunnel) -> KeyStatus:
        """The tunnel's keys, as fingerprints, and which of them each end uses."""
        peer, found = tunnel.policy.peer, self._gateway.endpoint.keys_in_use(tunnel.name)
        return KeyStatus(
            tunnel=tunnel.name,
            current=peer.psk.fingerprint(),
            next=peer.next_psk.fingerprint() if peer.next_psk is not None else None,
            retire_after=tunnel.policy.retire_after,
            ours=self._use(found.ours) if found is not None else None,
            theirs=self._use(found.theirs) if found is not None else None,
            remarks=[
                KeyRemark(code=one.code, message=one.message, hint=one.hint) for one in suspicions(peer.psk)
            ],
        )

    def check(self, tunnel: Tunnel, request: RotateRequest) -> None:
        """Raises Conflict or InvalidConfiguration for a step that does not fit."""
        name, peer = tunnel.name, tunnel.policy.peer
        if request.step == "begin":
            if peer.next_psk is not None:
                message = f"{name} has a next key already, {peer.next_psk.fingerprint()}"
                raise Conflict("E-ROTATING", message, "finish or cancel that first")
            if request.key is not None and request.key.removeprefix("plain:").encode() == peer.psk.reveal():
                raise InvalidConfiguration(
                    "E-PSK-SAME", "the next key is the current one", "make another one"
                )
            return
        if peer.next_psk is None:
            message = f"{name} has no next key"
            raise Conflict("E-NOT-ROTATING", message, f"vpnctl psk rotate {name} begins")
        if request.step == "finish" and not request.force and not self._is_proved(tunnel):
            message = f"the peer of {name} was not seen with the next key, {peer.next_psk.fingerprint()}"
            hint = f"vpnctl psk rotate {name} --prove, when the peer has it; or --force"
            raise Conflict("E-NOT-PROVED", message, hint)

    async def prove(self, tunnel: Tunnel, seconds: float) -> None:
        """Authenticate with the next key, beside what there is. Raises Conflict, NegotiationFailed."""
        name = tunnel.name
        if tunnel.policy.peer.mode is NegotiationMode.AGGRESSIVE:
            message = (
                "in aggressive mode the peer proves itself first: its key shows when this end has finished"
            )
            raise Conflict("E-AGGRESSIVE", message, f"vpnctl psk rotate {name} --finish --force")
        if not self._gateway.endpoint.ike_sas(name):
            raise Conflict("E-NOT-UP", f"{name} is {tunnel.state.value}", f"vpnctl up {name}")
        with self._gateway.turn() as now:
            self._gateway.endpoint.prove_next_key(now, name)
        if not await self._gateway.watchers.wait(name, lambda: self._is_proved(tunnel), seconds):
            message = (
                f"{name}: the peer has not shown the next key within {seconds:g} s; the current one goes on"
            )
            raise NegotiationFailed("E-NOT-PROVED", message, f"has the peer got it? vpnctl trace {name}")

    def lines(self, known: ConfiguredTunnel, request: RotateRequest) -> list[str]:
        """What to write for a tunnel that a file defines. No key is in it."""
        where = f"# {known.place}, in [{dotted(known.path)}]"
        if request.step == "cancel":
            return [where, "# remove next_pre_shared_key and retire_after", "# then: vpnctl reload"]
        if request.step == "finish":
            return [
                where,
                f'pre_shared_key = "{known.table.next_pre_shared_key}"'
                if not (known.table.next_pre_shared_key or "").startswith("plain:")
                else "# give pre_shared_key the value of next_pre_shared_key",
                "# remove next_pre_shared_key and retire_after",
                "# then: vpnctl reload",
            ]
        file = KEY_FILE.format(known.name)
        lines = [
            f"# vpnctl psk generate | sudo install -o vpnd -m 0600 /dev/stdin '{file}'",
            where,
            f'next_pre_shared_key = "file:{file}"',
        ]
        if request.retire_after is not None:
            lines.append(f"retire_after = {request.retire_after.isoformat()}")
        return [*lines, "# then: vpnctl reload"]

    def _is_proved(self, tunnel: Tunnel) -> bool:
        found, following = self._gateway.endpoint.keys_in_use(tunnel.name), tunnel.policy.peer.next_psk
        if found is None or following is None:
            return False
        return found.theirs.fingerprint == following.fingerprint()

    def _use(self, used: KeyInUse) -> KeyUse:
        clock = self._gateway.clock
        since = at_wall(clock, clock.now(), used.since)
        return KeyUse(fingerprint=used.fingerprint, since=since.replace(microsecond=0))
