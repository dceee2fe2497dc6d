"""Exchanges of IKEv2 in which the order of arrival decides: a file for each suite of strongSwan's tests.

The names of the tests are those of its exchange suites, the best known list of such cases. Each is played for
both roles, and for every order of nonces where nonces decide. What does not apply to vpnd is in
`NOT_APPLICABLE`, each with its reason; `test_names.py` checks that nothing is missing.
"""

MULTIPLE_KEY_EXCHANGES = "vpnd speaks no additional key exchanges (RFC 9370): one key exchange makes an SA"
MESSAGE_ID_SYNC = (
    "vpnd speaks no IKEV2_MESSAGE_ID_SYNC (RFC 6311): it is one box, not a cluster whose members take over "
    "IKE SAs with stale message IDs, and does not announce it, so that no peer may use it"
)

SUITES: dict[str, tuple[str, ...]] = {
    "child_rekey": (
        "regular",
        "regular_multi_ke",
        "regular_ke_invalid",
        "regular_ke_invalid_multi_ke",
        "regular_responder_ignore_soft_expire",
        "regular_responder_handle_hard_expire",
        "regular_responder_delete",
        "regular_responder_lost_sa",
        "regular_responder_incorrect_delete",
        "regular_delete_timeout",
        "collision",
        "collision_multi_ke",
        "collision_mixed",
        "collision_delayed_response",
        "collision_delayed_response_delete",
        "collision_delayed_response_multi_ke",
        "collision_delayed_request",
        "collision_delayed_request_more",
        "collision_delayed_request_more_delete",
        "collision_delayed_request_multi_ke",
        "collision_ke_invalid",
        "collision_ke_invalid_delayed_retry",
        "collision_responder_incorrect_delete",
        "collision_delete",
        "collision_delete_multi_ke",
        "collision_delete_drop_delete",
        "collision_delete_drop_rekey",
        "collision_delete_delayed_response",
        "collision_ike_rekey",
        "collision_ike_delete",
    ),
    "ike_rekey": (
        "regular",
        "regular_multi_ke",
        "regular_ke_invalid",
        "regular_ke_invalid_multi_ke",
        "collision",
        "collision_multi_ke",
        "collision_mixed",
        "collision_ke_invalid",
        "collision_ke_invalid_delayed_retry",
        "collision_delayed_response",
        "collision_delayed_response_multi_ke",
        "collision_dropped_request",
        "collision_delayed_request",
        "collision_delayed_request_and_delete",
        "collision_delayed_request_multi_ke",
        "collision_delete",
        "collision_delete_multi_ke",
        "collision_delete_drop_delete",
    ),
    "ike_mid_sync": (
        "responder",
        "retransmit",
        "replay",
        "disabled",
        "sender_too_low",
        "recv_update",
        "active",
    ),
    "child_delete": (
        "regular",
        "collision",
        "collision_drop",
        "collision_ike_rekey",
        "collision_ike_delete",
    ),
    "ike_delete": ("regular", "collision"),
    "child_create": ("duplicate", "collision_ike_rekey", "multi_ke"),
    "childless": ("regular", "regular_manual", "failure_init", "failure_resp"),
}
"""Every case of the seven suites."""

NOT_APPLICABLE: dict[tuple[str, str], str] = {
    ("child_rekey", "regular_multi_ke"): MULTIPLE_KEY_EXCHANGES,
    ("child_rekey", "regular_ke_invalid_multi_ke"): MULTIPLE_KEY_EXCHANGES,
    ("child_rekey", "collision_multi_ke"): MULTIPLE_KEY_EXCHANGES,
    ("child_rekey", "collision_mixed"): MULTIPLE_KEY_EXCHANGES,
    ("child_rekey", "collision_delayed_response_multi_ke"): MULTIPLE_KEY_EXCHANGES,
    ("child_rekey", "collision_delayed_request_multi_ke"): MULTIPLE_KEY_EXCHANGES,
    ("child_rekey", "collision_delete_multi_ke"): MULTIPLE_KEY_EXCHANGES,
    ("ike_rekey", "regular_multi_ke"): MULTIPLE_KEY_EXCHANGES,
    ("ike_rekey", "regular_ke_invalid_multi_ke"): MULTIPLE_KEY_EXCHANGES,
    ("ike_rekey", "collision_multi_ke"): MULTIPLE_KEY_EXCHANGES,
    ("ike_rekey", "collision_mixed"): MULTIPLE_KEY_EXCHANGES,
    ("ike_rekey", "collision_delayed_response_multi_ke"): MULTIPLE_KEY_EXCHANGES,
    ("ike_rekey", "collision_delayed_request_multi_ke"): MULTIPLE_KEY_EXCHANGES,
    ("ike_rekey", "collision_delete_multi_ke"): MULTIPLE_KEY_EXCHANGES,
    ("child_create", "multi_ke"): MULTIPLE_KEY_EXCHANGES,
    ("ike_mid_sync", "responder"): MESSAGE_ID_SYNC,
    ("ike_mid_sync", "retransmit"): MESSAGE_ID_SYNC,
    ("ike_mid_sync", "sender_too_low"): MESSAGE_ID_SYNC,
    ("ike_mid_sync", "recv_update"): MESSAGE_ID_SYNC,
    ("ike_mid_sync", "active"): MESSAGE_ID_SYNC,
}
"""The cases that vpnd cannot meet, and why. Of the message ID suite two remain, both from outside: a
notification of an extension that is not in use is not acted on (`disabled`), however often (`replay`)."""
