"""`vpnctl why`: of the one tunnel that needs it, what stands and what is over, and without the daemon."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.control.conftest import Remote, vpnctl
from tests.unit.control.fakes import FakeOperations, tunnel_failed, tunnel_up
from vpnd.config.kept import REASONS_FILE
from vpnd.control import render

NOBODY = "/does/not/exist.sock"


@pytest.fixture(autouse=True)
def _as_new(remote: Remote) -> None:
    remote.operations.begin_again()


def ask(remote: Remote, *arguments: str) -> tuple[int, str]:
    done = vpnctl("--socket", str(remote.socket), "why", *arguments)
    return done.code, done.out + done.err


def test_without_a_name_it_is_the_tunnel_with_trouble(remote: Remote) -> None:
    code, text = ask(remote)
    assert (code, text.split()[0]) == (0, "E-PSK")
    assert text == ask(remote, "branch-b")[1]


def test_of_several_with_trouble_the_names_are_listed(remote: Remote) -> None:
    remote.operations.tunnels["branch-c"] = tunnel_failed("branch-c")
    code, text = ask(remote)
    assert code == 2
    assert "2 tunnels need it: branch-b (E-PSK), branch-c (E-PSK)" in text
    error = json.loads(ask(remote, "--json")[1])["error"]
    assert error["tunnels"] == ["branch-b", "branch-c"]


def test_where_nothing_is_wrong_it_says_so(remote: Remote) -> None:
    remote.operations.tunnels = {"branch-a": tunnel_up("branch-a")}
    code, text = ask(remote)
    assert code == 1
    assert "no tunnel needs it" in text


def kept(state: Path, **tunnels: object) -> None:
    document = {"format": 1, "at": "2026-03-01T14:02:11+00:00", "tunnels": tunnels}
    (state / REASONS_FILE).write_text(json.dumps(document))


def test_without_the_daemon_its_last_words_are_read(tmp_path: Path) -> None:
    why = FakeOperations().why("branch-b").model_dump(mode="json", by_alias=True)
    kept(tmp_path, **{"branch-a": {**why, "tunnel": "branch-a", "standing": False}, "branch-b": why})
    done = vpnctl("--socket", NOBODY, "why", "--state", str(tmp_path))
    assert done.code == 0
    assert done.out.startswith("E-PSK")
    assert done.err.startswith(f"vpnd cannot be reached on {NOBODY}: there is no such socket; start vpnd")
    assert "This is what vpnd knew at 2026-0" in done.err
    assert "; the tunnel was " in " ".join(done.out.split())
    printed = vpnctl("--json", "--socket", NOBODY, "why", "branch-b", "--state", str(tmp_path))
    assert json.loads(printed.out)["kept_at"] == "2026-03-01T14:02:11+00:00"
    assert json.loads(printed.out)["error"]["code"] == "E-PSK"
    unknown = vpnctl("--socket", NOBODY, "why", "branch-n", "--state", str(tmp_path))
    assert (unknown.code, "did you mean branch-b? tunnels: branch-a, branch-b" in unknown.err) == (2, True)
    nobody = vpnctl("--json", "--socket", NOBODY, "why", "nobody", "--state", str(tmp_path))
    assert json.loads(nobody.out)["error"]["hint"] == "tunnels: branch-a, branch-b"


def test_without_the_daemon_nothing_is_but_was(tmp_path: Path) -> None:
    whys = {name: FakeOperations().why(name).model_dump(mode="json", by_alias=True) for name in ("branch-a",)}
    kept(tmp_path, **whys)
    done = vpnctl("--socket", NOBODY, "why", "branch-a", "--state", str(tmp_path))
    assert (done.code, done.out) == (0, "branch-a was up; nothing had failed\n")
    none = vpnctl("--socket", NOBODY, "why", "--state", str(tmp_path))
    assert (none.code, "no tunnel needs it" in none.err) == (1, True)
    whys["branch-a"]["state"] = "waiting"
    kept(tmp_path, **whys)
    assert vpnctl("--socket", NOBODY, "why", "--state", str(tmp_path)).out.startswith("branch-a was waiting")
    kept(tmp_path)
    none = vpnctl("--socket", NOBODY, "why", "branch-a", "--state", str(tmp_path))
    assert (none.code, "there was none" in none.err) == (2, True)


def test_without_trouble_it_is_the_tunnel_that_waits(remote: Remote) -> None:
    waits = tunnel_up("branch-w").model_copy(update={"state": "waiting"})
    remote.operations.tunnels = {"branch-a": tunnel_up("branch-a"), "branch-w": waits}
    assert ask(remote) == ask(remote, "branch-w")
    remote.operations.tunnels["branch-x"] = waits.model_copy(update={"name": "branch-x"})
    assert ask(remote)[0] == 1


@pytest.mark.parametrize("content", [None, "", "[]", '{"tunnels": 1}'])
def test_without_the_daemon_and_its_words_the_reason_is_said(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / REASONS_FILE).write_text(content)
    done = vpnctl("--socket", NOBODY, "why", "branch-b", "--state", str(tmp_path))
    assert done.code == 3
    assert "E-UNREACHABLE-DAEMON" in done.err
    assert REASONS_FILE in done.err


WHY = FakeOperations().why("branch-b").model_dump(mode="json", by_alias=True)


def lines(**changes: object) -> str:
    return "\n".join(line.plain for line in render.why({**WHY, **changes}, 100))


def test_what_is_over_is_no_reason(tmp_path: Path) -> None:
    text = lines(standing=False, state="up")
    assert text.startswith("branch-b is up, and nothing is wrong that is known; the last failure")


def test_an_attempt_is_counted_and_what_is_known_so_far_says_so() -> None:
    attempt = {"since_s": 8, "sent": 4, "received": 0, "peer": "198.51.100.1", "port": 500}
    text = lines(attempt=attempt, so_far=True)
    assert text.startswith("branch-b is connecting: 4 sent, 0 received in 8 s to 198.51.100.1 on UDP 500")
    assert "so far, of the attempt that began at" in text


WHERE: list[tuple[tuple[str, object, str | None, bool], str]] = [
    (("ike.dh_group", [14], "a.toml:9", True), "a.toml:9: ike.dh_group = [14]"),
    (("ike.dh_group", [14], "a.toml:3", False), "a.toml:3: ike.dh_group = [14]  (not written: the default)"),
    (("pre_shared_key", "3f9a-77c1", "a.toml:4", True), "a.toml:4: pre_shared_key: fingerprint 3f9a-77c1"),
    (("ike.version", "ikev2", None, True), 'ike.version = "ikev2"  (made over the API: vpnctl add, or PUT)'),
    (
        ("customer_gateway", {"name": "b", "address": "198.51.100.1"}, "a.toml:1", True),
        'a.toml:1: address = "198.51.100.1" of b',
    ),
]


@pytest.mark.parametrize(("where", "text"), WHERE)
def test_where_to_change_it(where: tuple[str, object, str | None, bool], text: str) -> None:
    key, value, place, written = where
    one = {"key": key, "value": value, "place": place, "written": written}
    said = lines(explanation={**WHY["explanation"], "where": [one]})
    assert " ".join(f"where {text}".split()) in " ".join(said.split())


def test_a_tunnel_through_which_nothing_passes_needs_attention() -> None:
    status = FakeOperations().status().model_dump(mode="json")
    tunnel = next(one for one in status["tunnels"] if one["name"] == "branch-a")
    tunnel["impaired"] = {"code": "E-ONEWAY", "message": "nothing comes back", "at": "2026-03-01T14:02:11Z"}
    (line,) = (line.plain for line in render.status(status, 120) if "branch-a" in line.plain)
    assert line.startswith("!")
    assert line.endswith("E-ONEWAY")
