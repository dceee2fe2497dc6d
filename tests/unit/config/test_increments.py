"""What is checked again after a change is only what has changed, and the outcome is that of checking all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import count
from pathlib import Path
from sys import intern
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.config.random_configurations import KEYS
from vpnd.config import load as loading
from vpnd.config.compile import compile_gateway
from vpnd.config.load import Loaded, load, load_with, load_without
from vpnd.config.secrets import read_secret
from vpnd.config.snapshot import Snapshot
from vpnd.config.stamps import stamp, stamp_of
from vpnd.daemon.state import StateDirectory, to_toml
from vpnd.model.secret import Secret

FILES = ("main", "tunnels.d/a.toml", "tunnels.d/b.toml", "state/tunnels.d/c.toml", "state/tunnels.d/d.toml")
LATER = 4_000_000_000 * 10**9
"""Nanoseconds: at this time no file has changed just now."""

ADDRESSES = st.sampled_from(["198.51.100.1", "198.51.100.2", "peer.example", "any", "fd00::1", "192.0.2.1"])
RANGES = st.sampled_from(
    ["10.1.0.0/16", "10.1.2.0/24", "10.2.0.0/16", "0.0.0.0/0", "fd01::/64", "10.3.0.1/16"]
)
REFERENCES = st.sampled_from(["file:psk", "file:other.psk", "file:none.psk", f"plain:{KEYS[0]}", "secret"])

OPTIONAL: dict[str, st.SearchStrategy[object]] = {
    "routes": st.lists(RANGES, min_size=1, max_size=2),
    "next_pre_shared_key": REFERENCES,
    "interface": st.sampled_from(["vpn-x", "vpn-y"]),
    "priority": st.sampled_from([0, 100, -1]),
    "negotiation": st.sampled_from(["active", "passive", "pasive"]),
    "profile": st.sampled_from(["tencent-cloud", "default"]),
    "mtu": st.sampled_from([1200, 1400]),
    "mss": st.just(1500),
    "color": st.just("red"),
    "ike": st.fixed_dictionaries(
        {},
        optional={
            "version": st.sampled_from(["ikev1", "ikev2"]),
            "negotiation_mode": st.sampled_from(["main", "aggressive"]),
            "encryption": st.sampled_from(["aes-128", "3des", "aes-128-gcm"]),
            "remote_id": st.sampled_from(["x.example", "y.example"]),
        },
    ),
    "health_check": st.fixed_dictionaries(
        {"enabled": st.booleans()}, optional={"remote": st.just("10.1.2.3")}
    ),
    "dpd": st.fixed_dictionaries({}, optional={"timeout": st.sampled_from([5, 30])}),
}
SIDE = st.lists(RANGES, min_size=1, max_size=2)
RULE = st.fixed_dictionaries({"local": SIDE, "remote": SIDE})
GATEWAY = st.builds(lambda address: {"address": address}, ADDRESSES)
GOOD = st.builds(
    lambda peer, route, version, more: {
        "customer_gateway": peer,
        "pre_shared_key": "file:psk",
        "routes": [route],
        "ike": {"version": version},
        **more,
    },
    st.one_of(GATEWAY, st.just("named")),
    RANGES,
    st.sampled_from(["ikev1", "ikev2"]),
    st.fixed_dictionaries(
        {}, optional={key: OPTIONAL[key] for key in ("interface", "mtu", "dpd", "profile")}
    ),
)
ANY = st.builds(
    lambda peer, reference, more, spd: {
        "customer_gateway": peer,
        "pre_shared_key": reference,
        **more,
        **({"communication": "spd-policy", "spd": spd} if spd else {}),
    },
    st.one_of(GATEWAY, st.sampled_from(["named", "gone"])),
    REFERENCES,
    st.fixed_dictionaries({}, optional=OPTIONAL),
    st.lists(RULE, max_size=2),
)
TUNNEL = st.one_of(GOOD, GOOD, ANY)
NAMES = st.sampled_from(["t", "u", "v"])
OWN = st.sampled_from(["192.0.2.1", "198.51.100.1", "fd00::1", "auto"])
MAIN = st.fixed_dictionaries(
    {"gateway": st.builds(lambda own: {"name": "hq", "address": own}, OWN)},
    optional={
        "customer_gateways": st.fixed_dictionaries({"named": GATEWAY}),
        "tunnels": st.dictionaries(NAMES, TUNNEL, max_size=2),
    },
)
OTHER = st.fixed_dictionaries({"tunnels": st.dictionaries(NAMES, TUNNEL, min_size=1, max_size=2)})

STEPS = st.one_of(
    st.tuples(st.just("main"), MAIN),
    st.tuples(st.just("main"), MAIN),
    st.tuples(st.sampled_from(FILES[1:]), OTHER),
    st.tuples(st.just("remove"), st.sampled_from(FILES[1:])),
    st.tuples(st.just("key"), st.sampled_from([*KEYS, "short", ""])),
    st.tuples(st.just("mode"), st.tuples(st.sampled_from([*FILES, "psk"]), st.sampled_from([0o600, 0o644]))),
    st.tuples(st.just("disable"), st.lists(NAMES, unique=True)),
    st.tuples(st.just("gateway"), st.sampled_from([{}, {"region": "north"}])),
)


class Directory:
    """The files of a gateway; each that is written has another time, however quickly."""

    def __init__(self, path: Path) -> None:
        self.path, self.state, self.main = path, path / "state", path / "vpnd.toml"
        self._times = count(10**9)
        for directory in ("tunnels.d", "state/tunnels.d"):
            (path / directory).mkdir(parents=True)
        self.write(self.main, to_toml({"gateway": {"name": "hq", "address": "192.0.2.1"}}))
        self.put_key(KEYS[0])

    def write(self, path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o600)
        moment = next(self._times)
        os.utime(path, ns=(moment, moment))

    def put_key(self, text: str) -> None:
        for directory in ("", "tunnels.d", "state/tunnels.d"):
            self.write(self.path / directory / "psk", text)
            self.write(self.path / directory / "other.psk", KEYS[1])

    def file(self, name: str) -> Path:
        return self.main if name == "main" else self.path / name

    def step(self, what: str, value: Any) -> None:
        if what == "remove":
            self.file(value).unlink(missing_ok=True)
        elif what == "key":
            self.put_key(value)
        elif what == "mode":
            path = self.file(value[0])
            if path.exists():
                path.chmod(value[1])
        elif what == "disable":
            StateDirectory(self.state).write_disabled(value)
        elif what == "gateway":
            self.write(self.state / "gateway.toml", to_toml({"gateway": value}))
        else:
            self.write(self.file(what), to_toml(value))


def outcome(loaded: Loaded) -> tuple[object, ...]:
    """All that anyone asks of a configuration."""
    configuration = loaded.configuration
    tunnels = [
        (one.name, one.table, one.secret, one.next_secret, one.disabled, one.place)
        for one in configuration.tunnels.values()
    ]
    peers = configuration.customer_gateways.items()
    gateways = [(key, one.name, one.table, one.place) for key, one in peers]
    policy = compile_gateway(loaded) if loaded.ok and configuration.gateway is not None else None
    kept = Snapshot.of(loaded.sources).text()
    return loaded.problems, configuration.gateway, tunnels, gateways, policy, kept


@contextmanager
def everything_has_settled() -> Iterator[None]:
    """A file is known by its stamp at once: these tests give each its own time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vpnd.config.stamps.time.time_ns", lambda: LATER)
        yield


@given(
    st.lists(OTHER, min_size=4, max_size=4), st.lists(STEPS, min_size=2, max_size=5), st.booleans(), st.data()
)
@settings(deadline=None, max_examples=60)
def test_a_change_is_checked_as_all_is(
    tables: tuple[dict[str, Any], ...], steps: list[tuple[str, Any]], settled: bool, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as made:
        directory = Directory(Path(made))
        for file, table in zip(FILES[1:], tables, strict=True):
            directory.step(file, table)
        args = directory.main, directory.state
        with everything_has_settled() if settled else nullcontext():
            known = load(*args).sources
            for what, value in steps:
                directory.step(what, value)
                found = load(*args, known=known)
                assert outcome(found) == outcome(load(*args))
                # What is refused leaves in force what was, with which the next one begins.
                known = found.sources if found.ok else known
            proposed = StateDirectory(directory.state).propose(data.draw(NAMES), data.draw(TUNNEL)).source
            assert outcome(load_with(*args, proposed, known=known)) == outcome(load_with(*args, proposed))
            gone = directory.file(data.draw(st.sampled_from(FILES[1:])))
            assert outcome(load_without(*args, gone, known=known)) == outcome(load_without(*args, gone))


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    made = Directory(tmp_path)
    for name, file in (("t", "a"), ("u", "b"), ("v", "c")):
        place = "state/tunnels.d" if file == "c" else "tunnels.d"
        made.step(f"{place}/{file}.toml", {"tunnels": {name: tunnel(name)}})
    return made


def tunnel(name: str, **more: object) -> dict[str, object]:
    number = "tuv".index(name)
    peer = {"address": f"198.51.100.{number}"}
    return {"customer_gateway": peer, "pre_shared_key": "file:psk", "routes": [f"10.{number}.0.0/16"], **more}


def the_same(first: Loaded, second: Loaded) -> set[str]:
    """The tunnels whose policy is the very same object."""
    before = {policy.name: policy for policy in compile_gateway(first).tunnels}
    return {policy.name for policy in compile_gateway(second).tunnels if policy is before[policy.name]}


def test_only_what_has_changed_is_made_again(directory: Directory) -> None:
    first = load(directory.main, directory.state)
    assert the_same(first, first) == {"t", "u", "v"}
    directory.step("tunnels.d/b.toml", {"tunnels": {"u": tunnel("u", priority=7)}})
    second = load(directory.main, directory.state, known=first.sources)
    assert the_same(first, second) == {"t", "v"}
    assert compile_gateway(second).tunnels[1].priority == 7


def test_what_every_tunnel_depends_on_makes_each_again(directory: Directory) -> None:
    first = load(directory.main, directory.state)
    compile_gateway(first)
    directory.step("main", {"gateway": {"name": "hq", "address": "192.0.2.9"}})
    second = load(directory.main, directory.state, known=first.sources)
    assert {str(policy.peer.local_address) for policy in compile_gateway(second).tunnels} == {"192.0.2.9"}


def test_a_problem_follows_the_customer_gateway_that_it_is_about(directory: Directory) -> None:
    named = {
        "gateway": {"name": "hq", "address": "192.0.2.1"},
        "customer_gateways": {"named": {"address": "fd00::1"}},
    }
    directory.step("main", named)
    directory.step("tunnels.d/a.toml", {"tunnels": {"t": tunnel("t", customer_gateway="named")}})
    first = load(directory.main, directory.state)
    directory.write(directory.main, "\n\n" + directory.main.read_text())
    second = load(directory.main, directory.state, known=first.sources)
    (before,), (after,) = first.errors, second.errors
    assert before.code == "E-ADDRESS"
    assert (before.line or 0) + 2 == after.line


def test_a_file_that_has_not_changed_is_not_read_again(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    with everything_has_settled():
        first = load(directory.main, directory.state)
        read: list[object] = []

        def reading(reference: str, *rest: Any) -> Secret:
            read.append(reference)
            return read_secret(reference, *rest)

        sha256 = hashlib.sha256

        def hashing(data: bytes) -> object:
            read.append(data)
            return sha256(data)

        monkeypatch.setattr(loading, "read_secret", reading)
        monkeypatch.setattr("vpnd.config.load.hashlib.sha256", hashing)
        assert outcome(load(directory.main, directory.state, known=first.sources)) == outcome(first)
        assert not read
        directory.write(directory.path / "tunnels.d" / "psk", KEYS[1])
        other = load(directory.main, directory.state, known=first.sources)
        assert read == ["file:psk", "file:psk"]
        assert [one.secret == Secret(KEYS[1].encode()) for one in other.configuration.tunnels.values()] == [
            True,
            True,
            False,
        ]


def test_a_file_that_has_changed_just_now_is_read_again(directory: Directory) -> None:
    """Two changes within one step of the filesystem's clock leave the same times behind."""
    file = directory.file("tunnels.d/a.toml")
    assert stamp(file) is None
    first = load(directory.main, directory.state)
    kept = file.stat()
    text = file.read_text()
    assert "10.0.0.0/16" in text
    file.write_text(text.replace("10.0.0.0/16", "10.9.0.0/16"))
    os.utime(file, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    second = load(directory.main, directory.state, known=first.sources)
    assert [str(route) for route in second.configuration.tunnels["t"].table.routes] == ["10.9.0.0/16"]


def test_a_file_has_a_stamp_once_its_last_change_is_past(directory: Directory) -> None:
    with everything_has_settled():
        settled = stamp(directory.main)
        assert settled is not None
        assert settled == stamp(directory.main)
        directory.main.chmod(0o640)
        assert stamp(directory.main) != settled
        assert stamp(directory.path / "none") is None
        assert stamp("a\0b") is None
        assert stamp(directory.path) is None, "what a directory or a pipe holds changes without it"


def test_a_time_before_all_is_as_good_as_another(directory: Directory) -> None:
    """Some filesystems take years that 64 bits of nanoseconds do not."""
    with everything_has_settled():
        status = directory.main.stat()
        fields = {name: getattr(status, name) for name in dir(status) if name.startswith("st_")}
        for year in (1200, 1600):
            fields["st_mtime_ns"] = (year - 1970) * 31_556_952 * 10**9
            found = stamp_of(cast(os.stat_result, SimpleNamespace(**fields)))
            assert found is not None
            assert found != stamp(directory.main)


def test_a_mode_that_was_refused_is_refused_again(directory: Directory) -> None:
    """The next load begins with what is in force, which has not the stamp of what was refused."""
    file = "tunnels.d/a.toml"
    directory.step(file, {"tunnels": {"t": tunnel("t", pre_shared_key=f"plain:{KEYS[0]}")}})
    with everything_has_settled():
        in_force = load(directory.main, directory.state)
        assert in_force.ok
        directory.file(file).chmod(0o644)
        for _ in range(3):
            found = load(directory.main, directory.state, known=in_force.sources)
            assert [problem.code for problem in found.errors] == ["E-PSK-MODE"]
        directory.file(file).chmod(0o600)
        assert load(directory.main, directory.state, known=in_force.sources).ok


def test_lines_are_known_again_after_a_rollback(directory: Directory) -> None:
    """What was kept of a file has no lines, and a file without tunnels is kept as it is."""
    directory.step("main", {"gateway": {"name": "hq", "address": "192.0.2.1", "region": "x" * 300}})
    refused = load(directory.main, directory.state)
    assert refused.errors
    back = Snapshot.of(refused.sources).with_keys(refused.sources)
    assert load(directory.main, directory.state, known=back).problems == refused.problems


def test_words_are_in_memory_once_and_keys_are_not_kept(directory: Directory) -> None:
    written = tunnel("t", pre_shared_key=f"plain:{KEYS[0]}", next_pre_shared_key=f"plain:{KEYS[1]}")
    directory.step("tunnels.d/a.toml", {"tunnels": {"t": written}})
    table = load(directory.main, directory.state).configuration.tunnels["t"].written
    kept = {
        key: intern(value[:1] + value[1:]) is value  # an equal text, but where Python keeps this one
        for key, value in table.items()
        if isinstance(value, str)
    }
    assert kept == {"pre_shared_key": False, "next_pre_shared_key": False}
    (route,) = cast(list[str], table["routes"])
    assert intern(route[:1] + route[1:]) is route
