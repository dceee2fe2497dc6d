"""Two configurations negotiate in memory: the outcome, and what each end says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.unit.config.files import GATEWAY
from tests.unit.translate.tunnels import tunnel_of
from tests.unit.translate.variety import VARIETY
from vpnd.control import cli
from vpnd.control.simulation import simulate
from vpnd.translate.peer_config import peer_config

KEY = "correct-horse-battery-staple"
RULE = 'spd = [{ local = ["10.1.0.0/24"], remote = ["10.2.0.0/24"] }]\n'
MIRRORED = 'spd = [{ local = ["10.2.0.0/24"], remote = ["10.1.0.0/24"] }]\n'
V1 = 'ike.version = "ikev1"\n'


def write(
    path: Path, name: str, here: str, there: str, lines: str, key: str = f"plain:{KEY}", tunnel: str = "t"
) -> Path:
    """A whole configuration with one tunnel."""
    path.write_text(
        f'[gateway]\nname = "{name}"\naddress = "{here}"\n[customer_gateways.peer]\naddress = "{there}"\n'
        f'[tunnels.{tunnel}]\ncustomer_gateway = "peer"\npre_shared_key = "{key}"\n'
        f'communication = "spd-policy"\n{lines}'
    )
    path.chmod(0o600)
    return path


def pair(directory: Path, a: str = "", b: str = "", key: str = f"plain:{KEY}") -> tuple[Path, Path]:
    """`hq` and `branch`, mirrored but for these lines."""
    rule = "" if "spd = " in b else MIRRORED
    return (
        write(directory / "a.toml", "hq", "192.0.2.1", "192.0.2.2", RULE + a),
        write(directory / "b.toml", "branch", "192.0.2.2", "192.0.2.1", rule + b, key),
    )


def codes(paths: tuple[Path, Path]) -> list[tuple[str | None, ...]]:
    """Of each round what the two ends say of the tunnel, or else of its first mapping."""
    outcome, _ = simulate(*paths)
    return [
        tuple(
            found.code.value if (found := tunnel.diagnosis or tunnel.mappings[0].diagnosis) else None
            for tunnels in one.tunnels
            for tunnel in tunnels
        )
        for one in outcome.rounds
    ]


@pytest.mark.parametrize("lines", ["", V1, V1 + 'ike.negotiation_mode = "aggressive"\n'])
def test_what_is_alike_comes_up_and_can_be_rekeyed(tmp_path: Path, lines: str) -> None:
    outcome, assumed = simulate(*pair(tmp_path, lines, lines))
    assert outcome.works
    assert not assumed
    for one in outcome.rounds:
        for tunnels in one.tunnels:
            (tunnel,) = tunnels
            assert tunnel.ike is not None
            assert str(tunnel.ike.suite) == "aes-128/sha256/dh14"
            assert [str(mapping.suite) for mapping in tunnel.mappings] == ["aes-128/sha256"]
            assert tunnel.ike_renewed
            assert all(mapping.renewed for mapping in tunnel.mappings)


@pytest.mark.parametrize(
    ("a", "b", "first", "second"),
    [
        ("ike.dh_group = 19\n", "", ("E-P1-PROPOSAL", "E-P1-DH"), ("E-P1-DH", "E-P1-PROPOSAL")),
        ('ike.encryption = "aes-256"\n', "", ("E-P1-PROPOSAL", "E-P1-ENC"), ("E-P1-ENC", "E-P1-PROPOSAL")),
        (V1, "", ("E-V1V2", "E-V1V2"), ("E-V1V2", "E-V1V2")),
        (V1 + 'diagnose = "off"\n', "", ("E-SILENT", "E-V1V2"), ("E-V1V2", "E-V1V2")),
        ('diagnose = "all"\nike.dh_group = 19\n', "", ("E-P1-DH", "E-P1-DH"), ("E-P1-DH", "E-P1-PROPOSAL")),
        (V1 + 'ike.negotiation_mode = "aggressive"\n', V1, ("E-MODE", "E-MODE"), ("E-MODE", "E-SILENT")),
        ('ike.local_id = "x.example"\n', "", ("E-PSK", "E-ID"), ("E-PSK", "E-ID")),
        ("ipsec.pfs = 14\n", "", (None, "W-PFS"), (None, "W-PFS")),
    ],
)
def test_each_end_says_what_it_knows(
    tmp_path: Path, a: str, b: str, first: tuple[str | None, ...], second: tuple[str | None, ...]
) -> None:
    assert codes(pair(tmp_path, a, b)) == [first, second]


@pytest.mark.parametrize("version", ["", V1])
def test_another_key(tmp_path: Path, version: str) -> None:
    paths = pair(tmp_path, version, version, "plain:another-key-of-both-ends")
    assert codes(paths) == [("E-PSK", "E-PSK")] * 2


def test_pfs_that_differs_shows_in_the_first_rekey(tmp_path: Path) -> None:
    outcome, _ = simulate(*pair(tmp_path, "ipsec.pfs = 19\n", "ipsec.pfs = 14\n"))
    assert not outcome.works
    for one in outcome.rounds:
        tunnel = one.tunnels[one.beginner][0]
        assert tunnel.mappings[0].suite is not None, "IKEv2 makes the first SA without a key exchange"
        assert tunnel.mappings[0].renewed is False
        assert tunnel.mappings[0].diagnosis is not None
        assert tunnel.mappings[0].diagnosis.code.value.startswith("E-P")


def test_who_begins_is_what_the_files_say(tmp_path: Path) -> None:
    passive, triggered = 'negotiation = "passive"\n', 'negotiation = "traffic-triggered"\n'
    outcome, _ = simulate(*pair(tmp_path, passive, triggered))
    assert [one.beginner for one in outcome.rounds] == [1]
    assert outcome.works
    outcome, _ = simulate(*pair(tmp_path, passive, passive))
    assert outcome.rounds == ()
    assert not outcome.works


def test_a_nat_before_one_end(tmp_path: Path) -> None:
    a = write(tmp_path / "a.toml", "hq", "192.0.2.1", "203.0.113.9", RULE + 'ike.remote_id = "10.9.9.9"\n')
    b = write(tmp_path / "b.toml", "branch", "10.9.9.9", "192.0.2.1", MIRRORED)
    outcome, _ = simulate(a, b)
    assert outcome.works
    assert outcome.nat is not None
    assert all(one.tunnels[0][0].mappings[0].udp for one in outcome.rounds)


def test_a_tunnel_to_another_machine_is_left_out(tmp_path: Path) -> None:
    a, b = pair(tmp_path)
    a.write_text(
        a.read_text() + '[customer_gateways.third]\naddress = "198.51.100.7"\n[tunnels.u]\n'
        'customer_gateway = "third"\npre_shared_key = "plain:another-key-of-both-ends"\n'
        'routes = ["10.7.0.0/16"]\n'
    )
    outcome, _ = simulate(a, b)
    assert outcome.works
    assert [tunnel.name for tunnel in outcome.ends[0].elsewhere] == ["u"]


def test_a_key_of_another_machine_is_taken_to_be_the_same(tmp_path: Path) -> None:
    outcome, assumed = simulate(*pair(tmp_path, key="file:/nowhere/key"))
    assert outcome.works
    assert "cannot be read here" in assumed[0]


def test_the_same_each_time(tmp_path: Path) -> None:
    paths = pair(tmp_path, V1, V1, "plain:another-key-of-both-ends")
    first, second = (simulate(*paths)[0] for _ in range(2))
    assert [one.ladder for one in first.rounds] == [one.ladder for one in second.rounds]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if number % 3 == 0 else (pytest.mark.full_faults,))
        for number, name in enumerate(VARIETY)
    ],
)
def test_what_peer_config_writes_for_vpnd_comes_up(tmp_path: Path, name: str) -> None:
    tunnel = tunnel_of(tmp_path, VARIETY[name])
    (tmp_path / "vpnd.toml").write_text(
        GATEWAY + f'[tunnels.a]\ncustomer_gateway = "branch"\npre_shared_key = "plain:{KEY}"\n{VARIETY[name]}'
    )
    (tmp_path / "vpnd.toml").chmod(0o600)
    (tmp_path / "other.toml").write_text(peer_config(tunnel, "vpnd").text)
    outcome, _ = simulate(tmp_path / "vpnd.toml", tmp_path / "other.toml")
    assert outcome.works


# ------------------------------------------------------------------------------------- vpnctl


def run(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(cli.app.for_typer(), ["simulate", *map(str, arguments)])
    return done.exit_code, done.output


def test_the_command(tmp_path: Path) -> None:
    code, text = run(*pair(tmp_path))
    assert code == 0
    assert "10.1.0.0/24 - 10.2.0.0/24  up  aes-128/sha256  no PFS" in text
    assert "branch begins: the same" in text
    code, text = run(*pair(tmp_path, "ike.dh_group = 19\n"), "--ladder")
    assert code == 1
    assert "branch: t is waiting\n    E-P1-DH" in text
    assert "IKE_SA_INIT" in text
    assert KEY not in text


def test_a_file_that_cannot_be_seen_is_an_error(tmp_path: Path) -> None:
    code, text = run(tmp_path / ("n" * 300), pair(tmp_path)[1])
    assert code == 2
    assert "File name too long" in text


def test_the_command_as_json(tmp_path: Path) -> None:
    code, text = run("--json", *pair(tmp_path, V1, ""))
    assert code == 1
    document: dict[str, Any] = json.loads(text)
    assert document["works"] is False
    ends = document["rounds"][0]["gateways"]
    assert [end["tunnels"][0]["error"]["code"] for end in ends] == ["E-V1V2", "E-V1V2"]


def test_a_file_with_errors(tmp_path: Path) -> None:
    a, b = pair(tmp_path)
    b.write_text(b.read_text().replace("spd-policy", "spd-polisy"))
    code, text = run(a, b)
    assert code == 2
    assert "b.toml:9  E-VALUE" in text
    code, text = run(a, tmp_path / "nothing.toml")
    assert code == 2
    assert "E-FILE" in text
