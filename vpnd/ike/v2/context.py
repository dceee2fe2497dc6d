"""What an action may use of the IKE SA that it acts for."""

from __future__ import annotations

from vpnd.ike import context
from vpnd.ike.registry import Registry
from vpnd.ike.session import Phase, Session
from vpnd.ike.v2.children import Children
from vpnd.ike.v2.ike_sa import IkeSa
from vpnd.ike.v2.outbox import Outbox
from vpnd.ike.v2.requests import Requests


class Context(context.Context[IkeSa]):
    """Besides, its CHILD_SAs and requests."""

    def __init__(self, registry: Registry, sa: IkeSa, session: Session) -> None:
        super().__init__(registry, sa, session)
        self.children = Children(registry, self.timers)
        self.requests = Requests(self.timers)
        self.outbox = Outbox(registry, sa)

    def siblings(self) -> list[Context]:
        """The other established ones of the tunnel."""
        return [one for one in self.of_tunnel() if one is not self and one.sa.phase is Phase.ESTABLISHED]
