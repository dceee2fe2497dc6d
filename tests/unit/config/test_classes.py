"""The class of each key, and what a change from one configuration to another does to each tunnel."""

from __future__ import annotations

from pathlib import Path

import pytest

from contrib.reference import TABLES
from tests.unit.config.files import GATEWAY, ROUTES, TUNNEL, load_text
from vpnd.config.classes import CLASSES, MOVED, ChangeClass, Difference, Kind, TunnelDifference, classify
from vpnd.config.schema import Table

BASE = GATEWAY + TUNNEL
SPD = 'communication = "spd-policy"\n[[tunnels.a.spd]]\nlocal = ["10.0.0.0/24"]\nremote = '
PORT = "\nprotocol = 6\nremote_port = "


def difference(directory: Path, before: str, after: str) -> Difference:
    old, new = load_text(directory / "old", before), load_text(directory / "new", after)
    assert old.ok, old.errors
    assert new.ok, new.errors
    return classify(old, new)


def changed(directory: Path, before: str, after: str) -> TunnelDifference:
    """What becomes of tunnel a, with these lines in its table."""
    (found,) = difference(directory, BASE + before, BASE + after).tunnels
    assert (found.name, found.kind) == ("a", Kind.CHANGED)
    return found


def test_each_key_of_the_schema_has_a_class_and_no_other() -> None:
    keys = [
        f"{heading.strip('[]')}.{key}"
        for heading, model in TABLES
        for key, field in model.model_fields.items()
        if key != "spd" and not (isinstance(field.annotation, type) and issubclass(field.annotation, Table))
    ]
    assert sorted(CLASSES) == sorted(keys)


@pytest.mark.parametrize(
    ("before", "after", "key", "expected"),
    [
        ("", "dpd.timeout = 40", "dpd.timeout", ChangeClass.LIVE),
        ("", "dpd.enabled = false", "dpd.enabled", ChangeClass.LIVE),
        ("", 'description = "x"', "description", ChangeClass.LIVE),
        ("", 'negotiation = "passive"', "negotiation", ChangeClass.LIVE),
        ("", "mss = 1300", "mss", ChangeClass.LIVE),
        ("", "health_check.enabled = true", "health_check.enabled", ChangeClass.LIVE),
        ("", "ike.lifetime = 7200", "ike.lifetime", ChangeClass.NEXT_SA),
        ("", "ipsec.rekey_margin = 20", "ipsec.rekey_margin", ChangeClass.NEXT_SA),
        ("", "ipsec.pfs = 14", "ipsec.pfs", ChangeClass.REKEY),
        ("", 'ipsec.encryption = "aes-256"', "ipsec.encryption", ChangeClass.REKEY),
        ("", 'ike.local_id = "hq.example"', "ike.local_id", ChangeClass.NEW_IKE_SA),
        ("", "ike.dh_group = 19", "ike.dh_group", ChangeClass.NEW_IKE_SA),
        ("", 'interface = "vpn-x"', "interface", ChangeClass.INTERFACE),
        ("", 'ike.version = "ikev1"', "ike.version", ChangeClass.BREAK),
        (SPD + '["10.1.0.0/24"]', SPD + '["10.2.0.0/24"]', "spd", ChangeClass.REKEY),
        (SPD + '["10.1.0.0/24"]', SPD + '["10.1.0.0/24"]' + PORT + '"443"', "spd", ChangeClass.REKEY),
    ],
)
def test_a_key_that_changes_has_its_class(
    tmp_path: Path, before: str, after: str, key: str, expected: ChangeClass
) -> None:
    found = changed(tmp_path, before + "\n", after + "\n")
    assert found.change_class is expected
    assert expected in [change.change_class for change in found.keys if change.key == key]
    assert ("nothing" in found.cost) is (expected < ChangeClass.BREAK)


def test_of_several_changes_the_dearest_counts(tmp_path: Path) -> None:
    found = changed(tmp_path, "", "ipsec.pfs = 14\ndpd.timeout = 40\nike.lifetime = 7200\n")
    assert found.change_class is ChangeClass.REKEY
    assert [(one.key, one.before, one.after) for one in found.keys] == [
        ("ike.lifetime", 86400, 7200),
        ("ipsec.pfs", "disable", [14]),
        ("dpd.timeout", 30, 40),
    ]


def test_a_default_that_is_written_out_changes_nothing(tmp_path: Path) -> None:
    written = 'ike.lifetime = 86400\nike.local_id = "192.0.2.1"\ndpd.action = "retry"\n'
    assert difference(tmp_path, BASE, BASE + written) == Difference((), (), ("a",))


def test_a_key_is_shown_by_its_fingerprints(tmp_path: Path) -> None:
    (found,) = difference(tmp_path, BASE, BASE.replace("correct", "another")).tunnels
    (change,) = found.keys
    assert (change.key, change.change_class) == ("pre_shared_key", ChangeClass.NEXT_SA)
    assert change.before != change.after
    assert "horse" not in repr(found)


def test_the_peers_address_is_its_tunnels_change_and_its_name_is_not(tmp_path: Path) -> None:
    (found,) = difference(tmp_path, BASE, BASE.replace("198.51.100.1", "198.51.100.2")).tunnels
    assert found.change_class is ChangeClass.BREAK
    assert "customer_gateway.address" in [change.key for change in found.keys]
    (found,) = difference(tmp_path, BASE, BASE.replace("branch", "renamed")).tunnels
    assert found.change_class is ChangeClass.LIVE


def test_the_gateways_address_makes_each_tunnel_again(tmp_path: Path) -> None:
    found = difference(tmp_path, BASE, BASE.replace("192.0.2.1", "192.0.2.2"))
    assert [change.key for change in found.gateway] == ["gateway.address"]
    assert {one.cost for one in found.tunnels} == {MOVED}
    assert [(one.change_class, one.is_remade) for one in found.tunnels] == [(ChangeClass.BREAK, True)]
    own = BASE + 'ike.local_id = "hq.example"\n'
    (tunnel,) = difference(tmp_path, own, own.replace("192.0.2.1", "192.0.2.2")).tunnels
    assert (tunnel.change_class, tunnel.is_remade) == (ChangeClass.BREAK, True)


def test_a_tunnel_that_is_disabled_keeps_its_interface(tmp_path: Path) -> None:
    found = changed(tmp_path, "", "enabled = false\n")
    assert (found.change_class, found.is_remade) == (ChangeClass.BREAK, False)
    assert found.cost == "its traffic: DELETE to the peer, and it stays down"
    back = changed(tmp_path, "enabled = false\n", "")
    assert (back.change_class, back.is_remade) == (ChangeClass.LIVE, False)


def test_mappings_are_counted_and_their_order_costs_nothing(tmp_path: Path) -> None:
    ranges = [f'"10.1.{number}.0/24"' for number in range(5)]
    before = SPD + f"[{', '.join(ranges[:4])}]\n"
    found = changed(tmp_path, before, SPD + f"[{', '.join(ranges[1:])}]\n")
    assert (found.mappings_added, found.mappings_removed, found.mappings_kept) == (1, 1, 3)
    assert "1 mappings added, 1 removed, 3 stay" in found.cost
    turned = changed(tmp_path, before, SPD + f"[{', '.join(reversed(ranges[:4]))}]\n")
    assert turned.change_class is ChangeClass.LIVE


def test_a_route_of_the_other_ip_version_is_another_mapping(tmp_path: Path) -> None:
    found = changed(tmp_path, ROUTES, 'routes = ["10.2.0.0/16", "2001:db8::/32"]\n')
    assert (found.change_class, found.mappings_added, found.mappings_kept) == (ChangeClass.REKEY, 1, 1)


def test_tunnels_that_come_and_go(tmp_path: Path) -> None:
    second = TUNNEL.replace("tunnels.a", "tunnels.b").replace("branch", "other")
    found = difference(tmp_path, BASE + ROUTES, GATEWAY + second + ROUTES.replace("10.2", "10.3"))
    assert [(one.name, one.kind) for one in found.tunnels] == [("b", Kind.ADDED), ("a", Kind.REMOVED)]
    assert found.get("a") is found.tunnels[1]
    assert found.get("c") is None
    assert found.tunnels[0].cost == "nothing: it is new"
