"""Damaged configuration files at reload: all of the new configuration, or nothing of it."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.lab.lab import Lab, write
from tests.lab.plan import A, B, Plan
from tests.lab.process import wait_until
from tests.lab.topology import two_gateways
from tests.lab.traffic import require_ping
from tests.lab.vpnd import Vpnd
from tests.tables import TellRow
from vpnd.config.compile import compile_gateway, describe
from vpnd.config.load import Loaded, load
from vpnd.model.policy import TunnelPolicy

pytestmark = [pytest.mark.root, pytest.mark.slow]

TUNNELS = 4
MUTATIONS = 100
BY_PROGRAM = 10
"""Every so many reloads are `vpnctl reload`; the others are its request, without the start of a program."""
SEED = 20261122
WORDS = ("aes-256", "sha1", "banana", "10.2.1.0/24", "127.0.0.0/8", "passive", "", "t1", "name.example")
NUMBERS = (0, 1, 14, 30, 61, 3600, 86400, -1, 10**9)

Mutation = Callable[[random.Random, "Files"], None]
Spis = dict[tuple[str, int], str]


@dataclass
class Files:
    """A daemon's files as they were, and as they are now."""

    directory: Path
    original: dict[Path, bytes]

    @property
    def tables(self) -> list[Path]:
        return sorted(path for path in self.original if path.suffix == ".toml")

    @property
    def keys(self) -> list[Path]:
        return sorted(path for path in self.original if path.suffix != ".toml")

    def restore(self) -> None:
        """As they were; what was added is gone."""
        for extra in self.directory.joinpath("tunnels.d").iterdir():
            if extra not in self.original:
                extra.unlink()
        for path, data in self.original.items():
            write(path, data.decode(), mode=0o600)

    def edit(self, path: Path, change: Callable[[list[str]], None]) -> None:
        """Change the lines of a file."""
        lines = path.read_text().splitlines()
        change(lines)
        path.write_text("\n".join(lines) + "\n")


def damage_bytes(seed: random.Random, files: Files) -> None:
    path = seed.choice(files.tables + files.keys)
    data = bytearray(path.read_bytes())
    for _ in range(seed.randint(1, 3)):
        data[seed.randrange(len(data))] = seed.randrange(256)
    path.write_bytes(data)


def delete_line(seed: random.Random, files: Files) -> None:
    files.edit(seed.choice(files.tables), lambda lines: lines.__delitem__(seed.randrange(len(lines))))


def duplicate_line(seed: random.Random, files: Files) -> None:
    def change(lines: list[str]) -> None:
        at = seed.randrange(len(lines))
        lines.insert(at, lines[at])

    files.edit(seed.choice(files.tables), change)


def swap_lines(seed: random.Random, files: Files) -> None:
    def change(lines: list[str]) -> None:
        one, other = seed.sample(range(len(lines)), 2)
        lines[one], lines[other] = lines[other], lines[one]

    files.edit(seed.choice(files.tables), change)


def change_value(seed: random.Random, files: Files) -> None:
    def change(lines: list[str]) -> None:
        at = seed.choice([index for index, line in enumerate(lines) if "=" in line])
        key, _, value = lines[at].partition("=")
        if value.strip().isdigit():
            lines[at] = f"{key}= {seed.choice(NUMBERS)}"
        else:
            lines[at] = key + "=" + re.sub('"[^"]*"', f'"{seed.choice(WORDS)}"', value)

    files.edit(seed.choice(files.tables), change)


def keep_the_sas(seed: random.Random, files: Files) -> None:
    """A valid change that needs no new SAs."""

    def change(lines: list[str]) -> None:
        at = next(index for index, line in enumerate(lines) if line.startswith("priority"))
        lines[at] = f"priority = {seed.randint(1, 100)}"

    files.edit(seed.choice(files.tables[:TUNNELS]), change)


def cut_off(seed: random.Random, files: Files) -> None:
    path = seed.choice(files.tables)
    data = path.read_bytes()
    path.write_bytes(data[: seed.choice((0, seed.randrange(len(data))))])


def remove_file(seed: random.Random, files: Files) -> None:
    seed.choice(files.tables + files.keys).unlink()


def open_key(seed: random.Random, files: Files) -> None:
    seed.choice(files.keys).chmod(0o644)


def overlap(seed: random.Random, files: Files) -> None:
    path = seed.choice(files.tables[:TUNNELS])
    text = path.read_text()
    other = seed.randrange(TUNNELS)
    rule = f'[[tunnels.{path.stem}.spd]]\nlocal = ["10.1.{other}.0/25"]\nremote = ["10.2.{other}.0/25"]\n'
    path.write_text(text + rule)


def define_twice(seed: random.Random, files: Files) -> None:
    source = seed.choice(files.tables[:TUNNELS])
    write(source.with_name("twice.toml"), source.read_text(), mode=0o600)


MUTATIONS_BY_KIND: tuple[Mutation, ...] = (
    damage_bytes,
    delete_line,
    duplicate_line,
    swap_lines,
    change_value,
    change_value,
    keep_the_sas,
    cut_off,
    remove_file,
    open_key,
    overlap,
    define_twice,
)


def plan_of(number: int) -> Plan:
    here = replace(A, identity=f"a{number}.example", networks=(f"10.1.{number}.0/24",))
    there = replace(B, identity=f"b{number}.example", networks=(f"10.2.{number}.0/24",))
    return Plan(name=f"t{number}", local=here, remote=there, interface=f"vpn-t{number}")


def policies_of(loaded: Loaded) -> dict[str, TunnelPolicy]:
    return {policy.name: policy for policy in compile_gateway(loaded).tunnels}


def spis_of(vpnd: Vpnd) -> Spis:
    """The SPIs of the IKE SA of each mapping that is up, which a tunnel that is touched does not keep.

    Those of ESP change by themselves: the first rekey comes early, to prove that rekeys work.
    """
    tunnels = vpnd.get("/v1/status")["tunnels"]
    return {
        (tunnel["name"], index): f"{tunnel['ike']['spi_i']} {tunnel['ike']['spi_r']}"
        for tunnel in tunnels
        for index, mapping in enumerate(tunnel["mappings"])
        if mapping["spi_in"]
    }


def reload(vpnd: Vpnd, by_program: bool) -> tuple[bool, dict[str, Any]]:
    """Whether it was applied, and the document; an error names a file and, but for files as such, a line."""
    if by_program:
        done = vpnd.ctl("--json", "reload", check=False)
        assert done.returncode in (0, 2), done.stderr
        document = json.loads(done.stdout)
        applied = done.returncode == 0
    else:
        status, document = vpnd.post("/v1/reload")
        assert status in (200, 422), document
        applied = status == 200
    if not applied:
        problems = [p for p in document["error"]["problems"] if p["severity"] == "error"]
        assert problems
        assert all(p["line"] is not None or p["code"] in ("E-FILE", "E-MISSING") for p in problems), problems
        first = problems[0]
        place = first["file"] if first["line"] is None else f"{first['file']}:{first['line']}"
        assert place in document["error"]["message"]
    return applied, document


def test_a_hundred_damaged_configurations_are_applied_whole_or_not_at_all(lab: Lab, row: TellRow) -> None:
    wire = two_gateways(lab)
    plans = [plan_of(number) for number in range(TUNNELS)]
    for namespace, end in ((wire.a.gateway, 1), (wire.b.gateway, 2)):
        for number in range(1, TUNNELS):
            namespace.add_address(f"10.{end}.{number}.1/32")
    Vpnd(wire.b.gateway, B.address, plans=[plan.other() for plan in plans])
    ours = Vpnd(wire.a.gateway, A.address, plans=[plan.change(negotiation="active") for plan in plans])
    wait_until(lambda: len(spis_of(ours)) == TUNNELS, "every tunnel to be up")
    paths = [ours.config, *(ours.directory / "tunnels.d").iterdir(), *(ours.directory / "psk").iterdir()]
    files = Files(ours.directory, {path: path.read_bytes() for path in paths})
    state = ours.directory / "state"
    applied_is = load(ours.config, state)
    counted: Counter[str] = Counter()
    for number in range(MUTATIONS):
        seed = random.Random(SEED + number)
        files.restore()
        mutation = seed.choice(MUTATIONS_BY_KIND)
        mutation(seed, files)
        label = f"seed {SEED + number}: {mutation.__name__}"
        wanted = load(ours.config, state)
        before = spis_of(ours)
        applied, document = reload(ours, number % BY_PROGRAM == 0)
        after = spis_of(ours)
        assert applied == wanted.ok, f"{label}: {document}"
        old = policies_of(applied_is)
        if applied:
            applied_is = wanted
        new = policies_of(applied_is)
        untouched = {name for name in new if old.get(name) == new[name]}
        assert {key: spi for key, spi in before.items() if key[0] in untouched} == {
            key: spi for key, spi in after.items() if key[0] in untouched and key in before
        }, label
        if not applied:
            assert set(new) == untouched
        # What the daemon says it runs is what the files said, all of it.
        assert [tunnel["name"] for tunnel in ours.get("/v1/status")["tunnels"]] == list(new), label
        for name in new:
            assert ours.get(f"/v1/tunnels/{name}")["configuration"] == describe(applied_is, name), label
        counted["applied" if applied else "refused"] += 1
        counted["sas kept"] += sum(key in before and before[key] == spi for key, spi in after.items())
    files.restore()
    assert reload(ours, True)[0]
    wait_until(lambda: len(spis_of(ours)) == TUNNELS, "every tunnel to be up again")
    for number in range(TUNNELS):
        require_ping(wire.a.gateway, f"10.1.{number}.1", f"10.2.{number}.1", count=1)
    row(
        "configuration",
        what=f"{MUTATIONS} damaged configurations at reload, {TUNNELS} tunnels",
        figure=f"{counted['refused']} refused, {counted['applied']} applied, 0 half",
    )
    assert counted["refused"] >= MUTATIONS // 5
    assert counted["applied"] >= MUTATIONS // 10
