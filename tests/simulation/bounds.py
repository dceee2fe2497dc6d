"""Times, bounds and vendor IDs of both versions that tests use: the one place that knows where."""

from __future__ import annotations

from vpnd.ike.v1.children import (
    DELETED_KEPT,
    PAIRS_AT_MOST,
    REKEY_AGAIN,
    SETTLING,
    SETTLING_BESIDE,
    SURPLUS_KEPT,
)
from vpnd.ike.v1.exchanges.informational import RIGHT_AFTER
from vpnd.ike.v1.isakmp_sa import FRAGMENTATION, NAT_T_02, NAT_T_02N, NAT_T_03, NAT_T_RFC
from vpnd.ike.v1.keys import KEYS_TRIED
from vpnd.ike.v1.message_transport import REMEMBERED_IDS
from vpnd.ike.v1.quick_modes import CROSSED, LINGER, REFUSALS_KEPT, UNREAD_RENEWED
from vpnd.ike.v1.reauthentication import REPLACED_AT_MOST, REPLACED_FOR_NOW
from vpnd.ike.v2.children import DUPLICATE_KEPT_BY_PEER, INBOUND_KEPT, PFS_PROOF, PFS_PROOF_OF_PEER
from vpnd.ike.v2.duplicates import ANSWERS_WITHIN
from vpnd.ike.v2.exchanges.rekey_ike import REFUSED_WAIT
from vpnd.ike.v2.life import REINITIATE_AGAIN

__all__ = [
    "ANSWERS_WITHIN",
    "CROSSED",
    "DELETED_KEPT",
    "DUPLICATE_KEPT_BY_PEER",
    "FRAGMENTATION",
    "INBOUND_KEPT",
    "KEYS_TRIED",
    "LINGER",
    "NAT_T_02",
    "NAT_T_02N",
    "NAT_T_03",
    "NAT_T_RFC",
    "PAIRS_AT_MOST",
    "PFS_PROOF",
    "PFS_PROOF_OF_PEER",
    "REFUSALS_KEPT",
    "REFUSED_WAIT",
    "REINITIATE_AGAIN",
    "REKEY_AGAIN",
    "REMEMBERED_IDS",
    "REPLACED_AT_MOST",
    "REPLACED_FOR_NOW",
    "RIGHT_AFTER",
    "SETTLING",
    "SETTLING_BESIDE",
    "SURPLUS_KEPT",
    "UNREAD_RENEWED",
]
