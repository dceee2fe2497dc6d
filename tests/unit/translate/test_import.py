"""`vpnctl import`: other daemons' files become new ones that `vpnd check` takes; a broken one is an error."""

from __future__ import annotations

import json
import stat
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.unit.config.files import GATEWAY
from tests.unit.translate.foreign_files import CLOUD, IPSEC, IPSEC_SECRETS, SECRETS, SWANCTL, conn, connection
from tests.unit.translate.tunnels import peer_of
from tests.unit.translate.variety import VARIETY
from vpnd.config.load import load
from vpnd.control import cli
from vpnd.control.importing import import_files
from vpnd.control.simulation import simulate
from vpnd.model.secret import Secret
from vpnd.translate.imports import files, model
from vpnd.translate.imports.files import MAX_BYTES, Reader
from vpnd.translate.imports.importer import FORMATS, Broken, format_of, read
from vpnd.translate.imports.model import Connection, Found, Key, Keyring, Place, Remarks

KEY = "a key of more than twenty letters"
EVERY = [
    *(("swanctl.conf", name, text) for name, text in SWANCTL.items()),
    *(("ipsec.conf", name, text) for name, text in IPSEC.items()),
    *(("tencent-cloud.json", name, text) for name, text in CLOUD.items()),
]


def written(directory: Path, text: str, name: str = "swanctl.conf") -> Path:
    """A file with this text, byte for byte."""
    path = directory / name
    path.write_bytes(text.encode())
    return path


def found_in(directory: Path, text: str, name: str = "swanctl.conf") -> Found:
    return read([written(directory, text, name)])


def told(found: Found) -> str:
    return "\n".join(str(remark) for remark in found.remarks.found)


def vpnctl(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(cli.app.for_typer(), ["import", *map(str, arguments)])
    return done.exit_code, done.output


def test_there_are_thirty() -> None:
    assert len(EVERY) == 30


@pytest.mark.parametrize(("kind", "text"), [pytest.param(k, t, id=f"{k}-{n}") for k, n, t in EVERY])
def test_each_passes_import_and_check(tmp_path: Path, kind: str, text: str) -> None:
    path = written(tmp_path, text, "configuration")
    assert format_of(path) == kind, "by the content"
    files = [path]
    if kind == "ipsec.conf":
        files.append(written(tmp_path, IPSEC_SECRETS, "keys"))
        assert format_of(files[-1]) == "ipsec.secrets"
    imported = import_files(files, tmp_path / "new")
    assert imported.tunnels
    loaded = load(tmp_path / "new" / "vpnd.toml")
    assert loaded.ok, [str(problem) for problem in loaded.errors]
    assert len(imported.written.keys) == len(imported.tunnels)
    assert KEY not in (tmp_path / "new" / "vpnd.toml").read_text()
    assert KEY not in "".join(map(str, imported.remarks))


@pytest.mark.parametrize(("kind", "name"), [("swanctl.conf", "every-key"), ("ipsec.conf", "every-key")])
def test_every_line_that_is_not_taken_over_has_its_meaning(tmp_path: Path, kind: str, name: str) -> None:
    text = (SWANCTL if kind == "swanctl.conf" else IPSEC)[name]
    remarks = told(found_in(tmp_path, text, kind))
    assert "not known to the importer" not in remarks
    assert remarks.count("\n    ") > 40


def test_values_are_taken_over(tmp_path: Path) -> None:
    text = connection(
        "version = 1\nproposals = aes256-sha512-ecp256\nencap = yes\ndpd_timeout = 2m\nreauth_time = 8h",
        "esp_proposals = aes192-sha384-modp3072\nrekey_time = 90m\nrekey_bytes = 1048576\n"
        "start_action = trap\n"
        "dpd_action = restart\nreplay_window = 128\nsha256_96 = yes",
    )
    import_files([written(tmp_path, text)], tmp_path / "new")
    loaded = load(tmp_path / "new" / "vpnd.toml")
    table = loaded.configuration.tunnels["net"].table
    assert loaded.configuration.gateway is not None
    assert str(loaded.configuration.gateway.address) == "192.0.2.1"
    assert (table.ike.version, table.ike.encryption, table.ike.integrity, table.ike.dh_group) == (
        "ikev1",
        ["aes-256"],
        ["sha512"],
        [19],
    )
    assert (table.ike.local_id, table.ike.remote_id, table.ike.lifetime) == (
        "moon.example",
        "sun.example",
        28800,
    )
    assert (table.ipsec.encryption, table.ipsec.integrity, table.ipsec.pfs) == (["aes-192"], ["sha384"], [15])
    assert (table.ipsec.lifetime, table.ipsec.lifetime_kb) == (5400, 1024)
    assert (table.ipsec.encapsulation, table.ipsec.replay_window, table.ipsec.sha256_96) == ("udp", 128, True)
    assert (table.dpd.timeout, table.dpd.action, table.negotiation) == (120, "retry", "traffic-triggered")
    assert loaded.configuration.tunnels["net"].secret is not None


def test_also_the_own_value_wins_then_also_then_default(tmp_path: Path) -> None:
    (made,) = found_in(tmp_path, IPSEC["also-and-default"], "ipsec.conf").connections[-1:]
    assert (made.ike.encryption, made.esp.integrity, made.dpd, made.dpd_action) == (
        ["aes-256"],
        ["sha1"],
        120,
        "retry",
    )


def test_a_section_that_is_inherited_from(tmp_path: Path) -> None:
    (made,) = found_in(tmp_path, SWANCTL["inherited"]).connections
    assert (made.ike.encryption, made.ike.integrity, made.ike.groups, made.udp) == (
        ["aes-256"],
        ["sha512"],
        [19],
        True,
    )


def test_includes_relative_and_by_pattern(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    written(tmp_path / "conf.d", connection(), "a.conf")
    found = found_in(tmp_path, "include conf.d/*.conf\ninclude nothing/*.conf\n" + "secrets { }\n")
    assert [made.name for made in found.connections] == ["net"]
    assert found.connections[0].place.file.endswith("a.conf")
    assert "include nothing/*.conf" in told(found)


def test_the_side_of_an_ipsec_conf_is_the_one_that_is_here(tmp_path: Path) -> None:
    text = conn().replace("right=198.51.100.7", "right=%defaultroute")
    (made,) = found_in(tmp_path, text, "ipsec.conf").connections
    assert (made.remote_address, made.local_id) == ("192.0.2.1", "sun.example")
    (made,) = read([written(tmp_path, conn(), "ipsec.conf")], local="198.51.100.7").connections
    assert (made.local_address, made.remote_id) == ("198.51.100.7", "moon.example")


def test_the_key_of_both_ends_comes_before_that_of_everyone(tmp_path: Path) -> None:
    keys = (
        ': PSK "the key of everyone there is"\n@moon.example @sun.example : PSK "the key of both of them"\n'
    )
    files = [written(tmp_path, conn(), "ipsec.conf"), written(tmp_path, keys, "ipsec.secrets")]
    imported = import_files(files, tmp_path / "new")
    assert (tmp_path / "new/psk/net").read_bytes() == b"the key of both of them"
    assert imported.loaded.ok


@pytest.mark.parametrize(
    ("written_as", "octets"),
    [
        ('"0sQUJDREVGR0g="', b"0sQUJDREVGR0g="),
        ("'0x4142434445464748'", b"0x4142434445464748"),
        ("0sQUJDREVGR0g=", b"ABCDEFGH"),
        ("0x4142434445464748", b"ABCDEFGH"),
    ],
)
def test_a_key_in_quotes_is_the_text_itself(tmp_path: Path, written_as: str, octets: bytes) -> None:
    """So strongSwan and libreswan read ipsec.secrets; in swanctl.conf quotes mean nothing."""
    (key,) = found_in(tmp_path, f"@a @b : PSK {written_as}\n", "ipsec.secrets").keys
    assert key.secret.reveal() == octets
    text = f"secrets {{ ike-1 {{ secret = {written_as} }} }}\n"
    if "'" not in written_as:
        (key,) = found_in(tmp_path, text).keys
        assert key.secret.reveal() == b"ABCDEFGH"


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ipsec.secrets", '@a : PSK "{}"\n'),
        ("ipsec.secrets", "@a : PSK {}\n"),
        ("swanctl.conf", 'secrets {{ ike-1 {{ secret = "{}" }} }}\n'),
    ],
)
def test_a_key_is_the_octets_that_the_file_has(tmp_path: Path, name: str, text: str, encoding: str) -> None:
    word = "a-key-of-Z\u00fcrich"
    (tmp_path / name).write_bytes(text.format(word).encode(encoding))
    (key,) = read([tmp_path / name]).keys
    assert key.secret.reveal() == word.encode(encoding)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ipsec.secrets", "include\tinner\n"),
        ("ipsec.conf", "include\tinner\n"),
        ("ipsec.conf", " include\tinner\n"),
    ],
)
def test_blanks_of_any_kind_part_words(tmp_path: Path, name: str, text: str) -> None:
    inner = "@a : PSK x\n" if name == "ipsec.secrets" else conn()
    written(tmp_path, inner, "inner")
    found = read([written(tmp_path, text, name)], name)
    assert len(found.keys) + len(found.connections) == 1


def test_half_a_character_in_a_key_is_said_and_the_rest_is_made(tmp_path: Path) -> None:
    """JSON can have it (RFC 8259 section 8.2), and no octets are meant by it."""
    text = json.dumps({"VpnConnectionSet": [{
        "VpnConnectionName": "net\ud800",
        "PreShareKey": "a-key-of-more-than-twenty\ud83d",
        "IKEOptionsSpecification": {"LocalAddress": "192.0.2.1", "RemoteAddress": "198.51.100.7"},
    }]})  # fmt: skip
    code, output = vpnctl(written(tmp_path, text, "cloud.json"), "--output", tmp_path / "new")
    assert code == 2, output
    assert "half a surrogate pair" in output
    assert "a-key-of" not in output
    assert "[tunnels." in (tmp_path / "new/vpnd.toml").read_text()


def test_files_are_new_and_private(tmp_path: Path) -> None:
    path = written(tmp_path, connection())
    code, text = vpnctl(path, "--output", tmp_path / "new")
    assert code == 0, text
    for file in ("vpnd.toml", "psk/net"):
        assert stat.S_IMODE((tmp_path / "new" / file).stat().st_mode) == 0o600
    before = (tmp_path / "new/vpnd.toml").read_bytes()
    (tmp_path / "new/psk/net").write_bytes(b"mine")
    code, text = vpnctl(path, "--output", tmp_path / "new")
    assert code == 2
    assert "E-EXISTS" in text
    assert (tmp_path / "new/vpnd.toml").read_bytes() == before
    assert (tmp_path / "new/psk/net").read_bytes() == b"mine"


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new/vpnd.toml").symlink_to(tmp_path / "elsewhere")
    code, _ = vpnctl(written(tmp_path, connection()), "--output", tmp_path / "new")
    assert code == 2
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["loop", "d\udcff"])
def test_a_directory_of_no_use(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    code, text = vpnctl(written(tmp_path, connection()), "--output", tmp_path / name)
    assert code in (1, 2)
    assert "E-FILE" in text or "E-IMPORT" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loop", "swanctl.conf"]


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_dry_run_writes_nothing_and_prints_no_key(tmp_path: Path, form: tuple[str, ...]) -> None:
    code, text = vpnctl(written(tmp_path, connection()), "--dry-run", "--output", tmp_path / "new", *form)
    assert code == 0
    assert "[tunnels." in text
    assert KEY not in text
    assert not (tmp_path / "new").exists()
    if form:
        assert json.loads(text)["tunnels"] == ["net"]


BROKEN = [
    ("swanctl.conf", "connections {\n  a {\n", 3, "no closing brace"),
    ("swanctl.conf", "connections {\n}\n}\n", 3, "closed that was not opened"),
    ("swanctl.conf", 'connections {\n a {\n x = "y\n', 3, "a quote is not closed"),
    ("swanctl.conf", "connections {\n a\n b\n}\n", 2, "neither = nor an opening brace"),
    ("swanctl.conf", "connections {\n = x\n}\n", 2, "a name is expected"),
    ("swanctl.conf", "connections {\n" + "a {" * 60, 2, "nested more than"),
    ("ipsec.conf", "conn a\n left=1\nright=2\n", 3, "a line without indentation"),
    ("ipsec.conf", " left=1\nconn a\n", 1, "stands in no section"),
    ("ipsec.conf", "conn a\n left\n", 2, "this is no `key=value`"),
    ("ipsec.conf", 'conn a\n leftid="x\n', 2, "a quote is not closed"),
    ("ipsec.secrets", '@a : PSK "open\n', 1, "a quote is not closed"),
    ("ipsec.secrets", "@a : PSK\n", 1, "there is no key"),
    ("tencent-cloud.json", '{"a": \n', 2, "this is no JSON"),
    ("tencent-cloud.json", '{"a": 1}', 1, "there is no VpnConnectionSet"),
    ("tencent-cloud.json", "[" * 100_000, 1, "nested too deeply"),
]


@pytest.mark.parametrize(("kind", "text", "line", "reason"), BROKEN)
def test_a_broken_file_is_an_error_with_its_line(
    tmp_path: Path, kind: str, text: str, line: int, reason: str
) -> None:
    path = written(tmp_path, text, "file")
    with pytest.raises(Broken, match=reason) as broken:
        read([path], kind)
    assert str(broken.value).startswith(f"{path}:{line}  ")
    code, output = vpnctl(path, "--format", kind, "--output", tmp_path / "new")
    assert code == 2
    assert "E-IMPORT" in output
    assert not (tmp_path / "new").exists()


def test_a_file_that_includes_itself_or_inherits_from_itself(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="include each other"):
        found_in(tmp_path, "include swanctl.conf\n")
    with pytest.raises(Broken, match="include each other"):
        found_in(tmp_path, "include ipsec.conf\n", "ipsec.conf")
    with pytest.raises(Broken, match="in a circle"):
        found_in(tmp_path, "connections {\n  a : connections.a { children { c { } } }\n}\n")
    found = found_in(tmp_path, conn("also=net"), "ipsec.conf")
    assert [made.name for made in found.connections] == ["net"]


@pytest.mark.parametrize("what", ["missing", "directory", "binary", "other"])
def test_what_is_no_configuration(tmp_path: Path, what: str) -> None:
    path = tmp_path / "x"
    if what == "directory":
        path.mkdir()
    elif what != "missing":
        path.write_bytes(b"\0\1\2" if what == "binary" else b"hello\nworld\n")
    code, text = vpnctl(path)
    assert code == 2
    assert "E-IMPORT" in text


def test_no_message_repeats_a_key(tmp_path: Path) -> None:
    secret = "Tr0ub4dor&3-horse-battery"
    for text, kind in (
        (connection(f"secret = {secret}"), "swanctl.conf"),
        (f"secrets {{\n ike-1 {{\n  secret = {secret}\n  {secret}\n }}\n}}\n", "swanctl.conf"),
        (f"connections {{\n}}\nsecrets {{ eap-1 {{ secret = {secret} }} }}\n", "swanctl.conf"),
        (f"@a : PSK {secret}\n@b : XAUTH {secret}\n{secret}\n", "ipsec.secrets"),
        (f'@a : PSK "{secret}\n', "ipsec.secrets"),
        (conn(f"leftpassphrase={secret}"), "ipsec.conf"),
    ):
        path = written(tmp_path, text, "file")
        _, output = vpnctl(path, "--format", kind, "--dry-run")
        assert secret not in output, text


def test_an_unknown_format_or_word(tmp_path: Path) -> None:
    code, text = vpnctl(written(tmp_path, connection()), "--format", "wireguard")
    assert code == 2
    assert all(kind in text for kind in FORMATS)


@pytest.mark.parametrize("name", ["defaults", "two-mappings", "names", "gcm", "ikev1-pfs", "aggressive"])
def test_what_peer_config_writes_is_read_again_and_comes_up(tmp_path: Path, name: str) -> None:
    """Our own tunnel against the other side's file, as it is, but for the key."""
    lines = VARIETY[name]
    ours = tmp_path / "vpnd.toml"
    ours.write_text(
        GATEWAY + f'[tunnels.a]\ncustomer_gateway = "branch"\npre_shared_key = "plain:{KEY}"\n{lines}'
    )
    ours.chmod(0o600)
    (tmp_path / "made").mkdir()
    text = peer_of(tmp_path / "made", lines)
    theirs = written(tmp_path, text.replace("PUT-THE-PRE-SHARED-KEY-HERE", KEY))
    outcome, _ = simulate(ours, theirs)
    assert outcome.works
    wrong = written(tmp_path, text.replace("PUT-THE-PRE-SHARED-KEY-HERE", "some other key than that"))
    outcome, _ = simulate(ours, wrong)
    assert not outcome.works


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(FORMATS))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, kind: str
) -> None:
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes(data)
    with suppress(Broken):
        read([path], kind)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(EVERY), st.integers(0, 3000), st.text('{}="#:\n ,x0', max_size=4))
def test_a_file_with_a_fault_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, one: tuple[str, str, str], at: int, fault: str
) -> None:
    kind, _, text = one
    at %= len(text)
    directory = tmp_path_factory.mktemp("fault")
    path = written(directory, text[:at] + fault + text[at + 1 :], "file")
    with suppress(Broken):
        import_files([path], directory / "new", kind, dry_run=True)


def test_a_bound_on_files(tmp_path: Path) -> None:
    path = written(tmp_path, SECRETS)
    reader = Reader(Remarks())
    for _ in range(1000):
        reader.text(path)
    with pytest.raises(Broken, match="more than 1000 files"):
        reader.text(path)


MANY = ", ".join(f"10.{number >> 8}.{number & 255}.0/24" for number in range(1001))
OTHERS = "".join(f" a{n} : connections.a{n + 1}, connections.a{n + 1} {{ }}\n" for n in range(38))
BASE = "".join(f"  k{number} = 1\n" for number in range(50))
HEIRS = "".join(f" a{number} : connections.base {{ }}\n" for number in range(50))
CHILDREN = "".join(f"c{n} {{ local_ts = 10.{n >> 8}.{n & 255}.0/24\n }}\n" for n in range(1001))
CLOUDS = '{"VpnConnectionSet": [%s]}'
CLOUD_CONNECTION = '{"IKEOptionsSpecification": {}, "SecurityPolicyDatabaseSet": [%s]}'
POLICY = '{"LocalCidrBlock": "10.0.0.0/8", "RemoteCidrBlock": %s}'
TOO_MANY = {
    "ranges": ("swanctl.conf", connection().replace("10.2.0.0/16", MANY), "remote_ts has 1001 ranges"),
    "pairs": (
        "swanctl.conf",
        connection("", f"local_ts = {MANY[:600]}\n remote_ts = {MANY[:600]}"),
        "more than 1000 pairs of ranges",
    ),
    "children": ("swanctl.conf", connection("", "}\n" + CHILDREN + "z {"), "more than 1000 pairs of ranges"),
    "parents": (
        "swanctl.conf",
        f"connections {{\n{OTHERS} a38 {{ children {{ c {{ }} }} }}\n}}\n",
        "more than 2000 values",
    ),
    "heirs": (
        "swanctl.conf",
        f"connections {{\n base {{\n{BASE} }}\n{HEIRS}}}\n",
        "more than 2000 values",
    ),
    "connections": (
        "swanctl.conf",
        "connections {\n" + "".join(f" a{n} {{ children {{ c {{ }} }} }}\n" for n in range(21)) + "}\n",
        "more than 20 connections",
    ),
    "keys": (
        "swanctl.conf",
        "secrets {\n" + "".join(f" ike-{n} {{ secret = x }}\n" for n in range(21)) + "}\n",
        "more than 20 keys",
    ),
    "subnets": (
        "ipsec.conf",
        conn().replace("subnet=10.2.0.0/16", f"subnets={{{MANY}}}"),
        "rightsubnets has 1001 ranges",
    ),
    "conns": ("ipsec.conf", "conn %default\n right=192.0.2.2\n" + "conn a\n" * 21, "more than 20 conn"),
    "defaults": (
        "ipsec.conf",
        "conn %default\n" + "".join(f" k{n}=1\n" for n in range(500)) + "conn a\n" * 5,
        "more than 2000 values",
    ),
    "also": (
        "ipsec.conf",
        "conn b\n also=" + ",".join(f"n{n}" for n in range(500)) + "\n" + "conn a\n also=b\n" * 5,
        "more than 2000 values",
    ),
    "secrets": ("ipsec.secrets", ": PSK x\n" * 21, "more than 20 keys"),
    "owners": ("ipsec.secrets", "a " * 201 + ": PSK x\n", "more than 200 owners"),
    "blocks": (
        "tencent-cloud.json",
        CLOUDS % (CLOUD_CONNECTION % (POLICY % json.dumps(MANY.split(", ")))),
        "RemoteCidrBlock has 1001 ranges",
    ),
    "policies": (
        "tencent-cloud.json",
        CLOUDS % (CLOUD_CONNECTION % ", ".join([POLICY % '"10.9.0.0/16"'] * 1001)),
        "has 1001 ranges",
    ),
    "clouds": (
        "tencent-cloud.json",
        CLOUDS % ", ".join([CLOUD_CONNECTION % ""] * 21),
        "more than 20 connections",
    ),
    "digits": ("tencent-cloud.json", '{"a": ' + "1" * 5000 + "}", "a number in it is too long"),
}


@pytest.mark.parametrize("what", TOO_MANY)
def test_too_many_of_anything_is_an_error_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A small file that becomes a large one, and what no gateway takes; with bounds of a hundredth."""
    monkeypatch.setattr(model, "MAX_CONNECTIONS", model.MAX_CONNECTIONS // 100)
    monkeypatch.setattr(model, "MAX_OWNERS", model.MAX_OWNERS // 100)
    monkeypatch.setattr(files, "MAX_INHERITED", files.MAX_INHERITED // 100)
    kind, text, reason = TOO_MANY[what]
    path = written(tmp_path, text, "file")
    with pytest.raises(Broken, match=reason) as broken:
        read([path], kind)
    assert broken.value.place.file == str(path)
    assert broken.value.place.line > 0


def test_a_thousand_ranges_are_for_the_check_to_refuse(tmp_path: Path) -> None:
    text = connection().replace("10.2.0.0/16", MANY.rpartition(",")[0])
    imported = import_files([written(tmp_path, text)], tmp_path / "new", dry_run=True)
    assert "E-LIMIT" in [problem.code for problem in imported.loaded.errors]


def test_all_files_together_have_a_bound(tmp_path: Path) -> None:
    written(tmp_path, "# " + "x" * (MAX_BYTES - 3), "inner")
    with pytest.raises(Broken, match="the files of this import have more than 8388608 bytes"):
        found_in(tmp_path, "include inner\n" * 9, "ipsec.conf")


def test_an_include_does_not_go_through_all_that_is_below(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    written(tmp_path / "a" / "b", conn(), "deep.conf")
    found = found_in(tmp_path, "include a/**\ninclude a/b/**\n", "ipsec.conf")
    assert [made.name for made in found.connections] == ["net"]


def test_names_that_become_alike_have_files_of_short_names(tmp_path: Path) -> None:
    names = [chr(0x5000 + number) for number in range(150)]
    sections = "".join(f" {name} {{ children {{ c {{ }} }} }}\n" for name in names)
    imported = import_files(
        [written(tmp_path, f"connections {{\n{sections}}}\nsecrets {{ ike {{ secret = {KEY} }} }}\n")],
        tmp_path / "new",
    )
    assert imported.tunnels == tuple(names)
    assert max(len(path.name) for path in imported.files) < 12
    assert len(set(imported.files)) == 151


def test_a_number_of_a_protocol_may_have_any_length(tmp_path: Path) -> None:
    text = connection().replace("10.2.0.0/16", f"10.2.0.0/16[{'1' * 5000}/{'1' * 5000}]")
    assert "protocol and port are numbers" in told(found_in(tmp_path, text))


def test_which_key_fits_best(tmp_path: Path) -> None:
    """Both ends, the peer alone, we alone, everyone; of equals the first, and none of somebody else."""
    made = Connection("a", Place("f", 1), local_id="a.example", remote_address="192.0.2.2")
    owners = [("@other",), ("@a.example", "192.0.2.9"), (), ("%any",), ("a.example",), ("192.0.2.2", "@x")]
    owners += [("192.0.2.2",), ("192.0.2.2", "A.example")]
    keys = [Key(each, Secret(b"%d" % number), Place("f", 1)) for number, each in enumerate(owners)]

    def chosen(keys: list[Key]) -> bytes | None:
        secret = Keyring(keys).key_for(made)
        return secret.reveal() if secret is not None else None

    assert [chosen(keys[:upto]) for upto in range(9)] == [
        None, None, None, b"2", b"2", b"4", b"5", b"5", b"7"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["\n", " ", " \t\n", "#\n", "conn ", "connections ", "{", ": ", "@a : PSK x\n b\n", " a\n"]
)
def test_a_file_of_one_thing_is_looked_at_once(tmp_path: Path, text: str) -> None:
    """Blank lines alone took a pattern minutes: it began at each, and read all that follow."""
    path = written(tmp_path, text * (MAX_BYTES // len(text)), "configuration")
    with suppress(Broken):
        read([path])
