"""What people see: eighty columns, human units, nothing that a peer could forge."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from tests.unit.control.fakes import FakeOperations, mapping_up, tunnel_failed, tunnel_up
from vpnd.control import render, tracing
from vpnd.control.schema import HealthStatus, MappingStatus, Model, PeerStatus


def decoded(model: Model) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True)


def lines_of(operations: FakeOperations, width: int = 80) -> list[str]:
    return [line.plain for line in render.status(decoded(operations.status()), width)]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0s"),
        (-3, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (3599, "59m"),
        (3600, "1h"),
        (86400, "1d"),
        (9e6, "104d"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert render.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (1023, "1023"),
        (1024, "1.0K"),
        (10 * 1024, "10K"),
        (1023 * 1024, "1.0M"),
        (3_400_000, "3.2M"),
        (2**60, "1024P"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert render.size(count) == text


def test_status_of_a_tunnel_that_is_up_and_one_that_failed() -> None:
    head, names, up, failed = lines_of(FakeOperations())
    assert head.startswith("hq  192.0.2.1  vpnd 0.1.0")
    assert names.split() == ["TUNNEL", "PEER", "STATE", "SAs", "HEALTH", "IN/OUT", "NOTE"]
    assert up.split("  ") == [
        "*",
        "branch-a",
        "198.51.100.1",
        "up 12s",
        "1/1",
        "0% 0.7ms",
        "3.2M/168",
        "rekey 51m",
    ]
    assert failed.split() == ["!", "branch-b", "203.0.113.7", "down", "0/1", "E-PSK"]


@pytest.mark.parametrize(
    ("changes", "mark"),
    [
        ({}, "*"),
        ({"carries_traffic": False}, "o"),
        ({"state": "unhealthy"}, "!"),
        ({"state": "connecting", "ike": None}, "~"),
        ({"state": "waiting", "ike": None}, "-"),
        (
            {
                "mappings": [
                    mapping_up(),
                    MappingStatus(local="10.0.0.0/8", remote="10.9.0.0/16", state="down"),
                ]
            },
            "!",
        ),
    ],
)
def test_marks(changes: dict[str, Any], mark: str) -> None:
    *_, row = lines_of(FakeOperations(tunnel_up(**changes)))
    assert row[0] == mark


def test_only_what_needs_attention_is_red() -> None:
    operations = FakeOperations(tunnel_up(), tunnel_failed())
    up, failed = render.status(decoded(operations.status()), 80)[-2:]
    assert [str(span.style) for span in failed.spans if span.start == 0] == ["bold red"]
    assert [str(span.style) for span in up.spans if span.start == 0] == []


@pytest.mark.parametrize(
    ("health", "shown"),
    [
        (HealthStatus(state="unhealthy", sent=4, lost=4), "100%"),
        (HealthStatus(state="healthy", sent=8, lost=4, loss_percent=0.0, rtt_ms=0.52), "0% 0.52ms"),
        (HealthStatus(state="unknown", sent=0, lost=0), "unknown"),
    ],
)
def test_health_is_the_share_that_is_lost(health: HealthStatus, shown: str) -> None:
    *_, row = lines_of(FakeOperations(tunnel_up(health=health)))
    assert f"  {shown}  " in row


@pytest.mark.parametrize(("retry_in", "shown"), [(90.0, ["next try  in 1m"]), (None, [])])
def test_the_next_try_is_shown_where_there_is_one(retry_in: float | None, shown: list[str]) -> None:
    document = decoded(FakeOperations().tunnel("branch-b")) | {"retry_in_s": retry_in}
    lines = [" ".join(line.plain.split()) for line in render.tunnel(document, 80)]
    assert [line for line in lines if "next try" in line] == [" ".join(line.split()) for line in shown]


def test_no_tunnel() -> None:
    operations = FakeOperations()
    operations.tunnels = {}
    assert lines_of(operations)[1] == "no tunnel is configured"


WIDE = tunnel_up(
    "n" * 60,
    state="unhealthy",
    peer=PeerStatus(address="2001:db8:1111:2222:3333:4444:5555:6666"),
    health=HealthStatus(state="unhealthy", sent=1000, lost=1000, rtt_ms=1234.5),
    mappings=[mapping_up() for _ in range(200)],
)


@pytest.mark.parametrize("width", [80, 100, 160])
def test_status_fits(width: int) -> None:
    lines = lines_of(FakeOperations(WIDE, tunnel_up(), tunnel_failed()), width)
    assert max(map(len, lines)) <= width
    assert len(lines) == 5


@pytest.mark.slow
@given(name=st.text(min_size=1, max_size=60), code=st.text(max_size=30))
def test_status_fits_whatever_names_there_are(name: str, code: str) -> None:
    operations = FakeOperations(tunnel_up(name), tunnel_failed(name + "2"))
    document = decoded(operations.status())
    document["tunnels"][1]["last_error"]["code"] = code
    for line in render.status(document, 80):
        assert cell_len(line.plain) <= 80
        assert line.plain.isprintable() or not code.isprintable()


def test_everything_about_a_tunnel() -> None:
    text = "\n".join(line.plain for line in render.tunnel(decoded(FakeOperations().tunnel("branch-a")), 80))
    for expected in (
        "branch-a  up",
        "fingerprint 3f9a-77c1",
        "198.51.100.1 port 4500, strongSwan, NAT detected",
        "ikev2, aes-128/sha256, DH group 14",
        "81aaf615053ac3d0 - a7c74a3942a62381",
        "10.1.0.0/24 - 10.2.0.0/24  up",
        "in df39ebcd, out 46a1ff04",
        "healthy, 169.254.128.1 - 169.254.128.2",
        "last heard 3s ago",
    ):
        assert expected in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_last_hour_of_a_health_check_is_a_sum_and_a_mark_for_each_minute() -> None:
    minutes = [(60, 0, 10.0), (60, 6, 12.5), (60, 1, None), (60, 59, 30.0), (60, 60, None)]
    document = decoded(FakeOperations().tunnel("branch-a"))
    document["health_history"] = [
        {"at": "2030-01-01T00:00:00Z", "sent": sent, "lost": lost, "rtt_ms": rtt, "jitter_ms": None}
        for sent, lost, rtt in minutes
    ]
    text = [line.plain for line in render.tunnel(document, 80)]
    (at,) = [number for number, line in enumerate(text) if "last hour" in line]
    assert text[at].endswith("42.0 % lost, rtt 10 to 30 ms")
    assert text[at + 1].endswith(".119#")


def test_a_description_is_shown_where_there_is_one_and_writes_no_terminal_codes() -> None:
    detail = FakeOperations().tunnel("branch-a")
    assert "description" not in "\n".join(line.plain for line in render.tunnel(decoded(detail)))
    described = detail.model_copy(update={"description": "To the \x1b[31mbranch – 4711"})
    (line,) = [line.plain for line in render.tunnel(decoded(described)) if "description" in line.plain]
    assert "branch – 4711" in line
    assert line.isprintable()


def test_a_tunnel_that_failed_shows_its_errors() -> None:
    text = "\n".join(line.plain for line in render.tunnel(decoded(FakeOperations().tunnel("branch-b"))))
    assert "E-PSK" in text
    assert "IKE SA" not in text


def test_wide_characters_take_two_columns() -> None:
    document = decoded(FakeOperations().status())
    for tunnel in document["tunnels"]:
        tunnel["name"] = "上海\N{EN DASH}北京 " * 10
    header, *rows = [line.plain for line in render.status(document, 80)][1:]
    assert max(map(cell_len, rows)) <= 80
    place = header.index("PEER")
    peers = [tunnel["peer"]["address"] for tunnel in document["tunnels"]]
    assert {cell_len(row[: row.index(peer)]) for row, peer in zip(rows, peers, strict=True)} == {place}


def test_why_has_every_part() -> None:
    lines = [line.plain for line in render.why(decoded(FakeOperations().why("branch-b")))]
    assert lines[0] == "E-PSK  the pre-shared keys, or the identities, differ (IKE_AUTH)"
    starts = {line.split()[0] for line in lines[1:] if line[2] != " "}
    assert starts == {"when", "peer", "here", "or", "change", "try"}
    assert max(map(len, lines)) <= 80


def test_why_of_a_tunnel_without_a_failure() -> None:
    (line,) = render.why(decoded(FakeOperations().why("branch-a")))
    assert line.plain == "branch-a is up; nothing has failed"
    (line,) = render.why({"tunnel": "branch-a", "state": "down", "error": None, "explanation": None})
    assert line.plain == "branch-a is down; nothing has failed (vpnctl up branch-a)"


def test_the_errors_of_a_configuration_are_told_once_and_counted() -> None:
    problem = {"file": "vpnd.toml", "line": 3, "code": "E-KEY", "severity": "error", "hint": None}
    found = [{**problem, "message": "unknown key"}, {**problem, "line": 9, "message": "another"}]
    body = {"code": "E-KEY", "message": "vpnd.toml:3: unknown key (and 1 more)", "problems": found}
    assert [line.plain for line in render.error(body)] == [
        "vpnd.toml:3  E-KEY  unknown key",
        "vpnd.toml:9  E-KEY  another",
        "2 errors: nothing was changed",
    ]


def test_a_peer_cannot_steer_the_terminal() -> None:
    trace = [line.plain for line in tracing.ladder(decoded(FakeOperations().trace("branch-a"))["lines"])]
    assert all(line.isprintable() for line in trace)
    forged = tunnel_up(peer=PeerStatus(address="1.2.3.4", vendor="x\n* forged up\x1b[31m"))
    detail = FakeOperations(forged).tunnel("branch-a")
    assert all(line.plain.isprintable() for line in render.tunnel(decoded(detail)))


def test_a_refusal_does_not_say_the_same_twice() -> None:
    problem = {"file": "f", "line": 3, "code": "E-KEY", "severity": "error", "message": "m", "hint": "h"}
    same = {"code": "E-KEY", "message": "f: m", "hint": "h", "problems": [problem]}
    assert [line.plain for line in render.error(same)] == [
        "f:3  E-KEY  m",
        "    h",
        "1 error: nothing was changed",
    ]
    other = {"code": "E-CONFIG", "message": "refused", "hint": "x", "problems": [problem]}
    assert [line.plain for line in render.error(other)] == [
        "E-CONFIG  refused",
        "f:3  E-KEY  m",
        "    h",
        "  x",
    ]
