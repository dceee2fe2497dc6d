"""`vpnctl` as a program against a daemon on a socket: what it prints, where, and its exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.unit.control.conftest import Remote, called, vpnctl, vpnctl_process
from tests.unit.control.fakes import AT, tunnel_failed, tunnel_up
from vpnd import __version__
from vpnd.control import cli
from vpnd.control.schema import Event
from vpnd.daemon import main as daemon

ESCAPE = "\x1b"


@pytest.fixture(autouse=True)
def _as_new(remote: Remote) -> None:
    remote.operations.begin_again()


JSON_COMMANDS = [
    (["status"], 0),
    (["show", "branch-a"], 0),
    (["why", "branch-b"], 0),
    (["trace", "branch-a"], 0),
    (["nqa", "branch-a"], 0),
    (["nqa", "branch"], 2),
    (["events", "--since", "soon"], 2),
    (["fly"], 2),
    (["show"], 2),
    (["status", "--jsonn"], 2),
    (["psk", "spin"], 2),
    (["up", "branch-a"], 0),
    (["up", "branch-b"], 1),
    (["down", "branch-a"], 0),
    (["disable", "branch-a"], 0),
    (["enable", "branch-a"], 0),
    (["reset", "branch-a"], 0),
    (["rekey", "branch-a", "--child"], 0),
    (["rekey", "branch-b"], 1),
    (["switch", "branch-a", "branch-b"], 0),
    (["switch", "nobody"], 2),
    (["reload"], 0),
    (["gateway"], 0),
    (["gateway", "--type", "vpc", "--vpc", "vpc-1"], 0),
    (["gateway", "--type", "idc"], 2),
    (["status", "--state", "up", "--state", "down", "--text", "branch"], 0),
    (["status", "--state", "sideways"], 2),
    (["status", "--limit", "0"], 2),
    (["remove", "branch-a"], 1),
    (["remove", "nobody"], 2),
    (["add", "/does/not/exist.toml"], 2),
    (["peer-config", "branch-a", "--for", "strongswan"], 0),
    (["peer-config", "branch-a", "--for", "abacus"], 2),
    (["peer-config", "branch-a"], 2),
    (["pcap", "branch-a"], 2),
    (["show", "branch-\udcff"], 2),
    (["status", "--text", "\udcff"], 0),
    (["config", "branch-a"], 0),
    (["config", "nobody"], 2),
    (["export", "branch-a"], 0),
    (["export", "nobody"], 2),
    (["plan"], 0),
    (["plan", "1"], 0),
    (["plan", "19"], 1),
    (["diff"], 0),
    (["reload", "--dry-run"], 0),
    (["apply"], 0),
    (["apply", "--confirm", "120"], 0),
    (["confirm"], 0),
    (["rollback"], 0),
    (["rollback", "1"], 0),
    (["rollback", "--list"], 0),
    (["psk", "generate"], 0),
    (["psk", "fingerprint", "branch-a"], 0),
    (["show", "nobody"], 2),
]


@pytest.mark.parametrize(
    ("arguments", "code"), JSON_COMMANDS, ids=lambda value: "-".join(value) if isinstance(value, list) else ""
)
def test_json_is_all_there_is(remote: Remote, arguments: list[str], code: int) -> None:
    done = vpnctl("--json", "--socket", str(remote.socket), *arguments)
    assert (done.code, done.err) == (code, "")
    document = json.loads(done.out)
    assert (set(document) == {"error"}) == (code != 0)


@pytest.mark.parametrize(
    "arguments",
    [arguments for arguments, code in JSON_COMMANDS if code == 0],
    ids=lambda value: "-".join(value),
)
def test_without_json_it_is_for_people(remote: Remote, arguments: list[str]) -> None:
    done = vpnctl("--socket", str(remote.socket), *arguments)
    assert done.code == 0
    with pytest.raises(json.JSONDecodeError):
        json.loads(done.out)


def test_the_program_itself(remote: Remote) -> None:
    done = vpnctl_process("status", "--json", "--socket", str(remote.socket))
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out)["gateway"]["name"] == "hq"
    refused = vpnctl_process("--socket", str(remote.socket), "up", "branch-b")
    assert (refused.code, refused.out) == (1, "")


def test_options_stand_before_or_after(remote: Remote) -> None:
    before = vpnctl("--socket", str(remote.socket), "--json", "status")
    after = vpnctl("status", "--json", "--socket", str(remote.socket))
    between = vpnctl("--json", "psk", "fingerprint", "branch-a", "--socket", str(remote.socket))
    assert json.loads(before.out) == json.loads(after.out)
    assert json.loads(between.out) == {"tunnel": "branch-a", "fingerprint": "3f9a-77c1"}


@pytest.mark.parametrize("json_too", [False, True])
def test_a_daemon_that_is_not_there(tmp_path: Path, json_too: bool) -> None:
    done = vpnctl("status", "--socket", str(tmp_path / "none.sock"), *(["--json"] if json_too else []))
    assert done.code == 3
    assert "no such socket" in (done.out if json_too else done.err)
    assert (done.err if json_too else done.out) == ""


def test_a_socket_that_nobody_listens_on(tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left.sock"))
    done = vpnctl("status", "--socket", str(tmp_path / "left.sock"))
    assert (done.code, done.out) == (3, "")
    assert "nobody listens" in done.err


@pytest.mark.parametrize(
    "arguments", [["fly"], ["show"], ["status", "--jsonn"], ["up", "a", "--timeout", "soon"]]
)
def test_wrong_usage(arguments: list[str]) -> None:
    done = vpnctl(*arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err


def test_up_that_failed_says_why(remote: Remote) -> None:
    done = vpnctl("up", "branch-b", "--socket", str(remote.socket), "--timeout", "3")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("E-PSK  the pre-shared keys, or the identities, differ")
    assert "vpnctl why branch-b" in done.err
    assert remote.operations.calls == [("up", "branch-b", 3.0)]


def test_up_all_brings_up_what_it_can_and_counts_what_failed(remote: Remote) -> None:
    done = vpnctl("up", "--all", "--socket", str(remote.socket), "--timeout", "3")
    assert done.code == 1
    assert done.out.splitlines()[0] == "1 up, 1 failed"
    assert "branch-b: E-PSK  the pre-shared keys, or the identities, differ" in done.out
    assert "vpnctl why branch-b says more" in done.out
    progress = done.err.splitlines()
    assert sorted(line.split("] ")[1].split(":")[0] for line in progress) == [
        "branch-a is up",
        "branch-b failed",
    ]
    assert [line.split("]")[0] for line in progress] == ["[1/2", "[2/2"]
    assert sorted(remote.operations.calls) == [("up", "branch-a", 3.0), ("up", "branch-b", 3.0)]


def test_up_all_as_json_is_one_document(remote: Remote) -> None:
    done = vpnctl("--json", "up", "--all", "--socket", str(remote.socket))
    assert (done.code, done.err) == (1, "")
    document = json.loads(done.out)
    assert (document["up"], document["failed"]) == (1, 1)
    first, second = document["tunnels"]
    assert first == {"tunnel": "branch-a", "state": "up", "error": None}
    assert (second["tunnel"], second["state"], second["error"]["code"]) == ("branch-b", None, "E-PSK")


def test_up_all_is_done_where_nothing_failed(remote: Remote) -> None:
    del remote.operations.tunnels["branch-b"]
    done = vpnctl("up", "--all", "--socket", str(remote.socket))
    assert (done.code, done.out) == (0, "1 up, 0 failed\n")


@pytest.mark.parametrize("arguments", [["up"], ["up", "branch-a", "--all"]])
def test_up_wants_one_tunnel_or_all(remote: Remote, arguments: list[str]) -> None:
    done = vpnctl(*arguments, "--socket", str(remote.socket))
    assert (done.code, done.out) == (2, "")
    assert "one tunnel, or --all" in done.err
    assert remote.operations.calls == []


def test_no_colour_where_there_is_no_terminal(remote: Remote) -> None:
    for arguments in (["status"], ["show", "branch-a"], ["why", "branch-b"], ["trace", "branch-a"]):
        done = vpnctl(*arguments, "--socket", str(remote.socket))
        assert done.code == 0
        assert ESCAPE not in done.out


def test_status_fits_eighty_columns(remote: Remote) -> None:
    long = tunnel_failed("a-tunnel-with-a-name-that-goes-on-and-on-and-on-for-sixty-char")
    remote.operations.tunnels[long.name] = long
    done = vpnctl("status", "--socket", str(remote.socket), environment={"COLUMNS": "80"})
    assert max(map(len, done.out.splitlines())) <= 80
    assert len(done.out.splitlines()) == 2 + 3


def test_events_one_a_line(remote: Remote) -> None:
    for number in range(2):
        remote.operations.log.publish(
            Event(at=AT, tunnel="branch-a", event="tunnel-up", text=f"number {number}\x1b[31m")
        )
    text = vpnctl("events", "--socket", str(remote.socket))
    assert text.code == 0
    assert [line.split("  ")[1:3] for line in text.out.splitlines()] == [["branch-a", "tunnel-up"]] * 2
    assert ESCAPE not in text.out
    lines = vpnctl("events", "--json", "--socket", str(remote.socket)).out.splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["number 0\x1b[31m", "number 1\x1b[31m"]


def test_no_events_of_a_slip_and_none_that_match(remote: Remote) -> None:
    at = ("--socket", str(remote.socket))
    slip = vpnctl(*at, "events", "branch-x")
    assert (slip.code, slip.out) == (2, "")
    assert slip.err.splitlines()[1].strip().startswith("did you mean branch-")
    for arguments, said in ((["branch-a"], "no event matches"), ([], "no event yet")):
        done = vpnctl(*at, "events", *arguments)
        assert (done.code, done.out, done.err) == (0, "", f"{said}\n")
    assert vpnctl(*at, "events", "--json").out == ""
    remote.operations.log.publish(Event(at=AT, tunnel="removed", event="tunnel-removed", text="gone"))
    assert vpnctl(*at, "events", "removed").code == 0


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ([], ["0", "1", "2", "3"]),
        (["--tunnel", "t1"], ["1", "3"]),
        (["--tunnel", "t0", "--tunnel", "t1", "--limit", "3"], ["0", "1", "2"]),
        (["--event", "tunnel-down"], ["3"]),
        (["--code", "E-PSK", "--code", "E-ID"], ["2"]),
        (["--text", "2"], ["2"]),
    ],
)
def test_events_that_match(remote: Remote, options: list[str], left: list[str]) -> None:
    for number in range(4):
        kind, code = "tunnel-down" if number == 3 else "tunnel-up", "E-PSK" if number == 2 else None
        remote.operations.log.publish(
            Event(at=AT, tunnel=f"t{number % 2}", event=kind, text=str(number), code=code)
        )
    lines = vpnctl("events", "--json", "--socket", str(remote.socket), *options).out.splitlines()
    assert [json.loads(line)["text"] for line in lines] == left


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--state", "down"], ["branch-b"]),
        (["--negotiation", "passive"], ["branch-b"]),
        (["--role", "primary"], ["branch-a"]),
        (["--peer", "203.0.113.7"], ["branch-b"]),
        (["--code", "E-PSK"], ["branch-b"]),
        (["--text", "-A"], ["branch-a"]),
        (["--limit", "1"], ["branch-a"]),
        (["--state", "down", "--role", "primary"], []),
    ],
)
def test_status_of_tunnels_that_match(remote: Remote, options: list[str], left: list[str]) -> None:
    document = json.loads(vpnctl("status", "--json", "--socket", str(remote.socket), *options).out)
    assert [tunnel["name"] for tunnel in document["tunnels"]] == left


def test_the_gateways_labels_are_changed_one_by_one(remote: Remote) -> None:
    at = ("--socket", str(remote.socket))
    assert "region   eu-1" in vpnctl(*at, "gateway").out
    done = vpnctl(*at, "gateway", "--type", "vpc", "--vpc", "vpc-1")
    assert [line.split() for line in done.out.splitlines()[3:6]] == [
        ["type", "vpc"],
        ["vpc", "vpc-1"],
        ["region", "eu-1"],
    ]
    vpnctl(*at, "gateway", "--vpc", "", "--type", "ccn")
    assert remote.operations.labels == {"type": "ccn", "region": "eu-1"}
    refused = vpnctl(*at, "gateway", "--vpc", "vpc-1")
    assert (refused.code, "a gateway of type ccn belongs to no VPC" in refused.err) == (2, True)
    remote.operations.labels_from_api = False
    held = vpnctl(*at, "gateway", "--region", "x")
    assert (held.code, "is defined in vpnd.toml:4" in held.err) == (1, True)


def test_switch_says_what_carries_which_route(remote: Remote) -> None:
    by_hand = vpnctl("switch", "branch-a", "branch-b", "--socket", str(remote.socket))
    assert by_hand.out == (
        "10.2.0.0/16 is carried by branch-b\nbranch-a, branch-b: branch-b was chosen by hand\n"
    )
    back = vpnctl("switch", "branch-a", "--socket", str(remote.socket))
    assert back.out.endswith("branch-a, branch-b: health and priority decide\n")


def test_reload_with_errors_names_the_lines(remote: Remote) -> None:
    remote.operations.tunnels["broken"] = tunnel_up("broken")
    done = vpnctl("reload", "--socket", str(remote.socket))
    assert (done.code, done.out) == (2, "")
    assert "vpnd.toml:3  E-KEY  unknown key\n    remove it" in done.err


# ----------------------------------------------------------------------------------------- add


def test_add_sends_the_whole_tunnel(remote: Remote, tmp_path: Path) -> None:
    file = tmp_path / "new.toml"
    (tmp_path / "keys").mkdir()
    key = tmp_path / "keys/lab"
    key.write_text("a key that only its owner may read\n")
    key.chmod(0o600)
    file.write_text(
        '[customer_gateways.lab]\naddress = "203.0.113.50"\n'
        '[tunnels.lab-1]\ncustomer_gateway = "lab"\npre_shared_key = "file:keys/lab"\n'
        'routes = ["10.7.0.0/16"]\n'
        '[tunnels.lab-2]\ncustomer_gateway = "elsewhere"\npre_shared_key = "plain:secret"\n'
    )
    done = vpnctl("add", str(file), "--socket", str(remote.socket))
    assert (done.code, done.out) == (0, "lab-1: created\nlab-2: created\n")
    assert remote.operations.received == {
        "lab-1": {
            "customer_gateway": {"address": "203.0.113.50"},
            "pre_shared_key": "plain:a key that only its owner may read",
            "routes": ["10.7.0.0/16"],
        },
        "lab-2": {"customer_gateway": "elsewhere", "pre_shared_key": "plain:secret"},
    }


def test_add_reads_a_key_with_the_rights_of_its_caller(remote: Remote, tmp_path: Path) -> None:
    file, key = tmp_path / "new.toml", tmp_path / "key"
    file.write_text('[tunnels.lab]\ncustomer_gateway = "x"\npre_shared_key = "file:key"\n')
    at = ("--socket", str(remote.socket))
    missing = vpnctl("add", str(file), *at)
    assert (missing.code, remote.operations.received) == (2, {})
    assert f"{file}:3: the key file {key} cannot be read" in missing.err
    key.write_bytes(b"open to all")
    key.chmod(0o644)
    assert "E-PSK-MODE" in vpnctl("add", str(file), *at).err
    key.chmod(0o600)
    key.write_bytes(b"\xff\xfe no text")
    vpnctl("add", str(file), *at)
    assert remote.operations.received["lab"]["pre_shared_key"] == f"file:{key}", "for the daemon to read"


def test_add_names_the_line_of_a_problem(remote: Remote, tmp_path: Path) -> None:
    file = tmp_path / "new.toml"
    file.write_text('[tunnels.lab]\ncustomer_gateway = "x"\nroutes = [\n  "nonsense"\n]\n')
    done = vpnctl("add", str(file), "--socket", str(remote.socket))
    assert done.code == 2
    assert f"{file}:4  E-PREFIX" in done.err
    assert "request" not in done.err
    as_json = json.loads(vpnctl("add", str(file), "--json", "--socket", str(remote.socket)).out)["error"]
    assert [(problem["file"], problem["line"]) for problem in as_json["problems"]] == [(str(file), 4)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no tunnel"),
        ("[tunnels.a", "E-TOML"),
        ("x = 1\n[tunnels.a\n", "new.toml:2: "),
        ('x = 1\n[gateway]\nname = "other"\n', ":1: [x] cannot be added"),
        ("tunnels.a = 1\n", "is not a table"),
    ],
)
def test_add_refuses_what_is_no_tunnel(remote: Remote, tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "new.toml"
    file.write_text(text)
    done = vpnctl("add", str(file), "--socket", str(remote.socket))
    assert (done.code, done.out) == (2, "")
    assert says in done.err


# ----------------------------------------------------------------------------------------- keys


def test_a_generated_key_has_256_bits_of_letters_and_digits() -> None:
    keys = {vpnctl("psk", "generate").out for _ in range(3)}
    assert len(keys) == 3
    for key in keys:
        assert re.fullmatch(r"[A-Za-z1-9][A-Za-z0-9]{42}\n", key)


def test_a_key_is_rotated_step_by_step(remote: Remote, tmp_path: Path) -> None:
    at = ("--socket", str(remote.socket))
    begun = vpnctl(*at, "psk", "rotate", "branch-a")
    assert begun.code == 0
    text, key = begun.out.strip().splitlines()
    assert text == "branch-a: 3f9a-77c1 and 51b2-0e9d are accepted"
    sent = f"plain:{key.removeprefix('for the other end: ')}"
    assert remote.operations.calls == [("rotate_key", "branch-a", "begin", sent, False)]
    own = tmp_path / "key"
    own.write_text("a key from elsewhere\n")
    own.chmod(0o600)
    end = ("--retire-after", "2031-01-01T00:00:00Z")
    given = vpnctl(*at, "psk", "rotate", "branch-a", "--key", str(own), *end)
    assert (given.code, "elsewhere" in given.out) == (0, False)
    assert remote.operations.calls[-1][3] == "plain:a key from elsewhere"
    for step in ("prove", "finish", "cancel"):
        assert vpnctl(*at, "psk", "rotate", "branch-a", f"--{step}").code == 0
        assert remote.operations.calls[-1][2:4] == (step, None)
    lines = vpnctl(*at, "psk", "rotate", "branch-b")
    assert (lines.code, lines.out) == (0, "# in [tunnels.x]\n"), "no key for a file is printed"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--prove", "--finish"), "steps of their own"),
        (("--key", "/nowhere"), "cannot be read"),
        (("--retire-after", "soon"), "is not a moment"),
    ],
)
def test_what_a_rotation_cannot_use(remote: Remote, options: tuple[str, ...], says: str) -> None:
    done = vpnctl("--socket", str(remote.socket), "psk", "rotate", "branch-a", *options)
    assert (done.code, done.out) == (2, "")
    assert says in done.err
    assert not remote.operations.calls


def test_the_keys_in_use_are_shown_as_fingerprints(remote: Remote) -> None:
    at = ("--socket", str(remote.socket))
    head, first, *_ = vpnctl(*at, "psk", "status").out.splitlines()
    assert head.split() == ["TUNNEL", "CURRENT", "NEXT", "ENDS", "OURS", "THEIRS", "SINCE"]
    assert first.split()[:6] == ["branch-a", "3f9a-77c1", "51b2-0e9d", "-", "3f9a-77c1", "3f9a-77c1"]
    assert json.loads(vpnctl(*at, "--json", "psk", "status", "branch-a").out)["next"] == "51b2-0e9d"
    assert vpnctl(*at, "psk", "status", "nothing").code == 2


def test_help_names_every_command_and_the_exit_codes() -> None:
    done = vpnctl("--help")
    assert done.code == 0
    for word in (
        "status",
        "show",
        "up",
        "down",
        "reset",
        "rekey",
        "switch",
        "why",
        "events",
        "trace",
        "reload",
        "add",
        "remove",
        "gateway",
        "peer-config",
        "psk",
        "Exit codes",
    ):
        assert word in done.out


def test_config_says_where_each_value_comes_from(remote: Remote) -> None:
    done = vpnctl("--socket", str(remote.socket), "config", "branch-a")
    assert done.out.splitlines() == [
        "pre_shared_key = fingerprint 3f9a-77c1  # vpnd.toml:9",
        'ike.encryption = ["aes-128"]            # default',
    ]


def test_plan_says_what_changes_and_what_it_costs(remote: Remote) -> None:
    at = ("--socket", str(remote.socket))
    done = vpnctl(*at, "plan")
    assert done.out.splitlines() == [
        "branch-a  changed, next SA",
        "  costs nothing",
        "    ike.lifetime: 86400 -> 28800",
        "branch-c  added",
        "  costs nothing: it is new",
        "2 tunnels to change, 1 not touched",
    ]
    assert vpnctl(*at, "reload", "--dry-run").out == done.out
    assert vpnctl(*at, "plan", "1").out == "nothing changes, 0 tunnels to change, 1 not touched\n"
    assert vpnctl(*at, "diff").out.splitlines() == [
        "tunnel branch-a",
        "  - ike.lifetime = 86400",
        "  + ike.lifetime = 28800",
        "+ tunnel branch-c",
    ]
    assert vpnctl(*at, "diff", "1").out == "no difference\n"


def test_apply_says_until_when_it_has_to_be_confirmed(remote: Remote) -> None:
    at = ("--socket", str(remote.socket))
    lines = vpnctl(*at, "apply", "--confirm", "120").out.splitlines()
    assert lines[-2:] == [
        "2 tunnels changed, 1 not touched",
        "the confirmed configuration comes back in 120 s, unless you run: vpnctl confirm",
    ]
    assert "confirm" not in vpnctl(*at, "apply").out
    assert vpnctl(*at, "confirm").out == "configuration 2 is confirmed\n"
    assert vpnctl(*at, "rollback", "3").out == "0 tunnels changed, 2 not touched\n"
    assert remote.operations.calls[-4:] == [("apply", 120), ("apply", None), ("confirm",), ("rollback", 3)]
    listed = vpnctl(*at, "rollback", "--list").out.splitlines()
    assert [line.split()[0] for line in listed] == ["0", "1"]
    assert [line.endswith(note) for line, note in zip(listed, ("(running)", "(confirmed)"), strict=True)]
    assert vpnctl(*at, "apply", "--confirm", "0").code == 2


def test_export_prints_the_file(remote: Remote) -> None:
    at = ("--socket", str(remote.socket))
    assert vpnctl(*at, "export", "branch-a").out == "[tunnels.branch-a]\n"
    assert json.loads(vpnctl(*at, "--json", "export", "branch-a").out)["toml"] == "[tunnels.branch-a]\n"


def test_tokens_are_made_listed_and_revoked(remote: Remote) -> None:
    at = ("--socket", str(remote.socket))
    made = vpnctl(*at, "token", "create", "monitoring")
    token = made.out.strip()
    assert (made.code, made.err, token[:5]) == (0, "", "vpnd_")
    admin = json.loads(vpnctl(*at, "--json", "token", "create", "ops", "--role", "admin").out)
    assert (admin["name"], admin["role"]) == ("ops", "admin")
    listed = vpnctl(*at, "token", "list").out
    assert [line.split()[:2] for line in listed.splitlines()] == [["monitoring", "read"], ["ops", "admin"]]
    assert token not in listed + vpnctl(*at, "--json", "token", "list").out
    again = vpnctl(*at, "token", "create", "ops")
    assert (again.code, "E-EXISTS" in again.err) == (1, True)
    assert vpnctl(*at, "token", "create", "x", "--role", "king").code == 2
    for name in ("monitoring", "ops"):
        assert vpnctl(*at, "token", "revoke", name).out == f"{name}: revoked\n"
    assert vpnctl(*at, "token", "revoke", "ops").code == 2
    assert vpnctl(*at, "token", "list").out == "no token is valid\n"


EVERY = [
    [*name, word]
    for group, name in ((cli.app, []), *((one, [word]) for word, one in cli.app.groups.items()))
    for word in group.commands
]


@pytest.mark.parametrize(
    "arguments",
    [["-h"], ["help"], ["help", "psk", "rotate"], *([*command, "-h"] for command in EVERY)],
    ids=" ".join,
)
def test_help_has_no_noise(arguments: list[str]) -> None:
    done = vpnctl(*arguments, environment={"COLUMNS": "80"})
    assert (done.code, done.err) == (0, "")
    assert "Usage: vpnctl" in done.out
    assert not re.search(r"<(bool|str|path|int|float)>|\[\[|\{[A-Z]|\.\.\.\.", done.out)
    assert max(map(len, done.out.splitlines())) <= 80


@pytest.mark.parametrize(
    "command", [[], *([word] for word in daemon.app.commands)], ids=lambda words: " ".join(words) or "vpnd"
)
def test_help_of_the_daemon_has_no_noise(command: list[str]) -> None:
    done = called(daemon.app, "vpnd", *command, "-h", environment={"COLUMNS": "80"})
    assert (done.code, done.err) == (0, "")
    assert "Usage: vpnd" in done.out
    assert not re.search(r"<(bool|str|path|int|float)>|\[\[|\{[A-Z]|\.\.\.\.", done.out)
    assert max(map(len, done.out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("events", "--limit", "x"), "it has to be a whole number, such as 10"),
        (("events", "--limit", "1.5"), "it has to be a whole number, such as 10"),
        (("rollback", "abc"), "it has to be a whole number, such as 10"),
        (("rollback", "20"), "it has to be 19 at most"),
        (("up", "t", "--timeout", "x"), "it has to be a number, such as 10"),
        (("up", "t", "--timeout", "0"), "it has to be 0.1 at least"),
        (("pcap", "t", "-w", "-", "--megabytes", "9999"), "it has to be 256 at most"),
    ],
)
def test_a_wrong_number_is_said_in_plain_words(arguments: tuple[str, ...], words: str) -> None:
    done = vpnctl("--json", *arguments)
    assert done.code == 2
    message = json.loads(done.out)["error"]["message"]
    assert message.endswith(words), message


def test_the_version_of_the_program() -> None:
    assert vpnctl("--version").out == f"vpnctl {__version__}\n"


def test_a_slip_gets_what_was_meant(remote: Remote) -> None:
    assert "Did you mean 'status'" in vpnctl("stats").err
    assert "Did you mean 'rotate'" in vpnctl("help", "psk", "rotat").err
    assert "Did you mean 'generate'?" in vpnctl("psk", "gen").err
    assert "Did you mean" not in vpnctl("").err
    limit = json.loads(vpnctl("--json", "events", "--limit", "x").out)["error"]
    assert (limit["code"], limit["hint"]) == ("E-USAGE", "vpnctl help events")
    done = vpnctl("--json", "--socket", str(remote.socket), "show", "brnch-a")
    assert json.loads(done.out)["error"]["hint"].startswith("did you mean branch-a? ")
    usage = json.loads(vpnctl("--json", "stats").out)["error"]
    assert (usage["code"], usage["hint"]) == ("E-USAGE", "vpnctl help")
    assert "Did you mean 'status'" in usage["message"]
