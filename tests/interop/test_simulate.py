"""Random pairs of configurations: two daemons on a wire come to what `vpnctl simulate` says of the files."""

from __future__ import annotations

import json
import random
import re
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.lab.lab import Lab, write
from tests.lab.plan import PSK, A, B, Plan
from tests.lab.process import wait_until
from tests.lab.topology import agreement, two_gateways
from tests.lab.vpnd import Vpnd
from vpnd.control.simulation import document, simulate

pytestmark = [pytest.mark.root, pytest.mark.slow]

PAIRS = 200
SAMPLE = 3
"""Of them in `make test`."""

OTHER_KEY = "another key than the one of the other end"
SECONDS = 60.0
"""For an attempt that nobody answers, with all its repeats."""
SETTLED = 100.0
"""For a second one, and what the peer is asked then."""

CIPHERS = ("aes-128", "aes-192", "aes-256", "3des", "aes-128-gcm", "chacha20-poly1305")
HASHES = ("sha1", "sha256", "sha384", "sha512", "md5")
GROUPS = (14, 19, 20, 31, 5)


@dataclass(frozen=True)
class Tables:
    """What both ends have in `[tunnels.t]`."""

    a: dict[str, Any]
    b: dict[str, Any]


def some(dice: random.Random, words: tuple[Any, ...]) -> list[Any]:
    """One or two of them."""
    return dice.sample(words, dice.choice((1, 1, 2)))


def random_pair(seed: int) -> Tables:
    """Two tables that are mirrored, most often with one difference."""
    dice = random.Random(seed)
    version = dice.choice(("ikev1", "ikev2", "ikev2"))
    ciphers = CIPHERS[:4] if version == "ikev1" else CIPHERS
    networks = [f"10.1.{i}.0/24" for i in range(dice.choice((1, 1, 2)))]
    ike: dict[str, Any] = {
        "version": version,
        "encryption": some(dice, ciphers),
        "integrity": some(dice, HASHES),
        "dh_group": some(dice, GROUPS),
    }
    if version == "ikev1":
        ike["negotiation_mode"] = dice.choice(("main", "main", "aggressive"))
        if ike["negotiation_mode"] == "aggressive":
            ike["dh_group"] = ike["dh_group"][:1]
    ipsec: dict[str, Any] = {"encryption": some(dice, ciphers), "integrity": some(dice, HASHES)}
    if dice.random() < 0.5:
        ipsec["pfs"] = some(dice, GROUPS)
    ends = []
    for local, remote in ((networks, ["10.2.0.0/24"]), (["10.2.0.0/24"], networks)):
        table = {
            "pre_shared_key": f"plain:{PSK}",
            "communication": "spd-policy",
            "spd": [{"local": list(local), "remote": list(remote)}],
            "ike": json.loads(json.dumps(ike)),
            "ipsec": json.loads(json.dumps(ipsec)),
        }
        ends.append(table)
    a, b = ends
    a["negotiation"], b["negotiation"] = "active", "passive"
    if dice.random() < 0.75:
        _differ(dice, dice.choice(ends))
    return Tables(a, b)


def _differ(dice: random.Random, end: dict[str, Any]) -> None:
    """Change one thing at one end."""
    aggressive = end["ike"].get("negotiation_mode") == "aggressive"
    match dice.choice(
        ("key", "id", "encryption", "integrity", "group", "esp", "hash", "pfs", "range", "mode")
    ):
        case "key":
            end["pre_shared_key"] = f"plain:{OTHER_KEY}"
        case "id":
            end["ike"][dice.choice(("local_id", "remote_id"))] = "elsewhere.example"
        case "encryption":
            end["ike"]["encryption"] = [dice.choice(CIPHERS[:4])]
        case "integrity":
            end["ike"]["integrity"] = [dice.choice(HASHES)]
        case "group":
            end["ike"]["dh_group"] = [dice.choice(GROUPS)]
        case "esp":
            end["ipsec"]["encryption"] = [dice.choice(CIPHERS[:4])]
        case "hash":
            end["ipsec"]["integrity"] = [dice.choice(HASHES)]
        case "pfs":
            end["ipsec"]["pfs"] = dice.choice(("disable", 14, 19))
        case "range":
            end["spd"][0][dice.choice(("local", "remote"))] = ["10.1.0.0/25"]
        case "mode" if aggressive:
            end["ike"]["negotiation_mode"] = "main"
        case _:
            end["ike"]["version"] = "ikev2" if end["ike"]["version"] == "ikev1" else "ikev1"
            end["ike"].pop("negotiation_mode", None)
            for table in (end["ike"], end["ipsec"]):
                table["encryption"] = [dice.choice(CIPHERS[:4])]


def toml_of(table: dict[str, Any], path: str = "tunnels.t") -> str:
    """The table as TOML."""
    plain = {key: value for key, value in table.items() if not isinstance(value, dict) and key != "spd"}
    lines = [f"[{path}]", *(f"{key} = {json.dumps(value)}" for key, value in plain.items())]
    for rule in table.get("spd", []):
        lines += [f"[[{path}.spd]]", *(f"{key} = {json.dumps(value)}" for key, value in rule.items())]
    for key, value in table.items():
        if isinstance(value, dict):
            lines.append(toml_of(value, f"{path}.{key}"))
    return "\n".join(lines)


@dataclass
class Two:
    """Two vpnd on one wire, and where files are written."""

    a: Vpnd
    b: Vpnd
    directory: Path

    def files(self, tables: Tables) -> tuple[Path, Path]:
        """Both configurations as files."""
        paths = []
        for name, here, there, table in (
            ("a", A.address, B.address, tables.a),
            ("b", B.address, A.address, tables.b),
        ):
            path = self.directory / f"{name}.toml"
            path.write_text(
                f'[gateway]\nname = "{name}"\naddress = "{here}"\n[customer_gateways.peer]\n'
                f'address = "{there}"\n{toml_of({"customer_gateway": "peer", **table})}\n'
            )
            path.chmod(0o600)
            paths.append(path)
        return paths[0], paths[1]

    def live(self, tables: Tables, expected: object) -> list[dict[str, Any]]:
        """What two daemons come to: bring it up from a, rekey everything, and ask both.

        What fails is looked at again until both have the `expected` outcome, or for some time: the peer is
        asked after a second failure, and one end hears later than the other.
        """
        before = max((event["at"] for event in self.a.events("t")), default="")
        for end, there, table in ((self.b, A.address, tables.b), (self.a, B.address, tables.a)):
            parsed = tomllib.loads(toml_of(table))["tunnels"]["t"]
            end.call("PUT", "/v1/tunnels/t", {**parsed, "customer_gateway": {"address": there}})
        try:
            wait_until(self._decided, "the tunnel to come up, or to fail", SECONDS)
            if self.a.tunnel("t")["state"] == "up":
                if tables.a["ike"]["version"] == "ikev2":
                    self._wait_for_proof(before)
                self.a.ask("POST", "/v1/tunnels/t/rekey", {"timeout_s": 10})
            with suppress(TimeoutError):
                wait_until(lambda: self._outcome() == expected, "the outcome of both", SETTLED, 0.5)
            return self._outcome()
        finally:
            for end in (self.a, self.b):
                end.call("DELETE", "/v1/tunnels/t")

    def _outcome(self) -> list[dict[str, Any]]:
        return [_told(end) for end in (self.a, self.b)]

    def _decided(self) -> bool:
        tunnel = self.a.tunnel("t")
        ready = all(m["state"] == "up" or m["reason"] is not None for m in tunnel["mappings"])
        return ready and len(tunnel["mappings"]) > 0

    def _wait_for_proof(self, before: str) -> None:
        """The early rekey of IKEv2 has succeeded; or it has failed, from either end.

        Only events later than this count: the pairs before had a tunnel of the same name.
        """

        def proved() -> bool:
            events = {event["event"] for event in self.a.events("t") if event["at"] > before}
            if "rekeyed" in events:
                return True
            # The peer tries later, and says so itself.
            return all(any(m["reason"] for m in end.tunnel("t")["mappings"]) for end in (self.a, self.b))

        wait_until(proved, "the early rekey")


def _told(end: Vpnd) -> dict[str, Any]:
    """What is compared: the IKE SA, the mappings that are up, the codes."""
    tunnel, why = end.tunnel("t"), end.get("/v1/tunnels/t/why")
    return _essence(tunnel, tunnel["last_error"] or (why["error"] if tunnel["state"] != "up" else None))


def _essence(tunnel: dict[str, Any], error: dict[str, Any] | None) -> dict[str, Any]:
    ike = tunnel["ike"]
    up = [m for m in tunnel["mappings"] if m["state"] == "up"]
    reasons = [m["reason"]["code"] for m in tunnel["mappings"] if m["reason"]]
    return {
        "ike": ike and [ike[key] for key in ("version", "mode", "encryption", "integrity", "dh_group")],
        "up": [[m[key] for key in ("local", "remote", "encryption", "integrity")] for m in up],
        "code": error["code"] if error and not up else None,
        "reasons": sorted(set(reasons)) if up else [],
    }


def simulated(two: Two, tables: Tables) -> list[dict[str, Any]]:
    """The same of the simulation, where a begins."""
    outcome, assumed = simulate(*two.files(tables))
    found = document(outcome, assumed)["rounds"][0]
    return [_essence(end["tunnels"][0], end["tunnels"][0]["error"]) for end in found["gateways"]]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    with Lab() as lab:
        wire = two_gateways(lab)
        a, b = Vpnd(wire.a.gateway, A.address), Vpnd(wire.b.gateway, B.address)
        yield Two(a, b, tmp_path_factory.mktemp("files"))


@pytest.mark.parametrize(
    "seed",
    [pytest.param(seed, marks=() if seed < SAMPLE else (pytest.mark.full_faults,)) for seed in range(PAIRS)],
)
def test_two_daemons_come_to_what_is_simulated(two: Two, seed: int) -> None:
    tables = random_pair(seed)
    expected = simulated(two, tables)
    assert two.live(tables, expected) == expected, json.dumps([tables.a, tables.b])


def test_vpnd_takes_what_peer_config_writes_for_it(two: Two) -> None:
    plan = Plan(negotiation="traffic-triggered", pfs=19, local=replace(A, identity="hq.example"))
    two.a.add(plan)
    try:
        printed = two.a.ctl("peer-config", plan.name, "--for", "vpnd").stdout
        key = write(two.b.directory / "key", plan.psk, mode=0o600)
        text = re.sub(r'"file:[^"]*"', f'"file:{key}"', printed)
        # The other end has its [gateway] already.
        text = re.sub(r"(?m)^\[gateway\]\n(.+\n)+", "", text)
        path = write(two.b.directory / "tunnels.d" / "printed.toml", text, mode=0o600)
        two.b.ctl("reload")
        up = two.a.up(plan.name)
        assert up.returncode == 0, up.stderr
        agreement(two.a, two.b, plan.name)
        path.unlink()
        two.b.ctl("reload")
    finally:
        two.a.remove(plan.name)
