"""One IKE SA setup at a time for each peer address.

strongSwan asks for cookies from three half-open IKE SAs of one address and drops its messages from five, so
a gateway with many tunnels to one peer queues up.
"""

from __future__ import annotations

from collections import deque

from vpnd.model.identity import Address


class Setups:
    """Who sets an IKE SA up with each peer address, and who waits for it, in order of asking.

    `woken` names the tunnels whose turn has come; each holds the place and is to begin or to release it.
    """

    def __init__(self) -> None:
        self.woken: deque[str] = deque()
        self._holder: dict[Address, str] = {}
        self._waiting: dict[Address, deque[str]] = {}
        self._held: dict[str, Address] = {}
        self._asked: dict[str, Address] = {}

    def take(self, tunnel: str, peer: Address) -> bool:
        """Whether `tunnel` may begin; if not, it now waits and will be named by a `release`."""
        if self._held.get(tunnel) == peer:
            return True
        self._leave_queue(tunnel)
        if peer not in self._holder:
            self._holder[peer] = tunnel
            self._held[tunnel] = peer
            return True
        self._waiting.setdefault(peer, deque()).append(tunnel)
        self._asked[tunnel] = peer
        return False

    def waits(self, tunnel: str) -> bool:
        """Whether `tunnel` stands in a queue."""
        return tunnel in self._asked

    def release(self, tunnel: str) -> None:
        """`tunnel` sets nothing up any more; the first that waits for the same peer is woken."""
        self._leave_queue(tunnel)
        peer = self._held.pop(tunnel, None)
        if peer is None:
            return
        del self._holder[peer]
        queue = self._waiting.get(peer)
        if not queue:
            return
        heir = queue.popleft()
        del self._asked[heir]
        if not queue:
            del self._waiting[peer]
        self._holder[peer] = heir
        self._held[heir] = peer
        self.woken.append(heir)

    def _leave_queue(self, tunnel: str) -> None:
        peer = self._asked.pop(tunnel, None)
        if peer is not None:
            self._waiting[peer].remove(tunnel)
            if not self._waiting[peer]:
                del self._waiting[peer]
