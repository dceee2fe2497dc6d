"""`vpnctl trace`: repeats folded, filters, what comes later; and the bundle for support."""

from __future__ import annotations

import json
import os
import stat
import tarfile
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.control.conftest import Remote, vpnctl
from tests.unit.control.fakes import AT
from vpnd.control import moments, tracing


def message(text: str, direction: str = "out", at: int = 0, detail: tuple[str, ...] = ()) -> dict[str, Any]:
    when = (AT + timedelta(seconds=at)).isoformat()
    return {"id": at, "at": when, "direction": direction, "text": text, "size": 80, "detail": list(detail)}


def drawn(messages: list[dict[str, Any]]) -> list[str]:
    """Without times and bytes."""
    return [line.plain.strip().split("  ", 1)[-1].split("  (")[0] for line in tracing.ladder(messages)]


def test_questions_for_a_sign_of_life_fold_into_one() -> None:
    signs = []
    for number in range(5):
        signs += [
            message(f"INFORMATIONAL {number} {{}}", "in", 2 * number),
            message(f"INFORMATIONAL {number} {{}}", "out", 2 * number + 1),
        ]
    messages = [message("IKE_SA_INIT 0 {SA, KEi, Ni}"), *signs, message("INFORMATIONAL 5 {D}")]
    first, *pair, folded, last = drawn(messages)
    assert (first, last) == ("->  IKE_SA_INIT 0 {SA, KEi, Ni}", "->  INFORMATIONAL 5 {D}")
    assert pair == ["<-  INFORMATIONAL 0 {}", "->  INFORMATIONAL 0 {}"]
    assert folded.startswith("these came 4 more times, the last at ")


def test_attempts_that_fail_alike_fold_whatever_their_message_ids() -> None:
    attempt = ["MAIN {:08x} {{SA, V}}", "QUICK {:08x}* {{HASH, SA, Ni, IDi, IDr}}"]
    messages = [message(text.format(7 * number)) for number in range(3) for text in attempt]
    assert drawn(messages)[:2] == [
        "->  MAIN 00000000 {SA, V}",
        "->  QUICK 00000000* {HASH, SA, Ni, IDi, IDr}",
    ]
    assert drawn(messages)[2].startswith("these came 2 more times")
    assert drawn(messages[:1] * 2)[1].startswith("it came once more")


def test_what_differs_in_a_detail_does_not_fold() -> None:
    messages = [message("INFORMATIONAL 1 {D}", detail=(f"D: ESP {spi}",)) for spi in ("c0ffee00", "c0ffee01")]
    assert len(drawn(messages)) == 4


@given(st.lists(st.sampled_from("abc"), max_size=40))
def test_folded_blocks_are_the_messages(letters: list[str]) -> None:
    messages = [message(f"{letter} {number:08x} {{}}", at=number) for number, letter in enumerate(letters)]
    blocks = list(tracing.folded(messages))
    assert [one for block, _ in blocks for one in block] == messages
    for block, times in blocks:
        part = len(block) // times
        assert part * times == len(block)
        first = [one["text"][0] for one in block[:part]]
        assert [one["text"][0] for one in block] == first * times


def test_moments() -> None:
    now = datetime.now(UTC)
    for text, seconds in (("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86400), ("1w", 604800)):
        assert abs((now - moments.moment_of(text)).total_seconds() - seconds) < 60
    assert moments.moment_of("2026-03-01T14:02:11Z") == AT
    for wrong in ("", "10", "m", "10x", "yesterday", "-5m"):
        with pytest.raises(ValueError, match=r".*"):
            moments.moment_of(wrong)
    with pytest.raises(ValueError, match="too long ago"):
        moments.moment_of("999999w")


def test_the_command_says_what_matches(remote: Remote) -> None:
    at = ("--socket", str(remote.socket))
    since = ("--since", "2026-01-01T00:00:00Z")
    done = vpnctl(*at, "trace", "branch-a", "--exchange", "IKE_SA_INIT", *since)
    sent, _, received = done.out.splitlines()
    assert (sent.split("  ")[1], received.split("  ")[1]) == ("->", "<-")
    none = vpnctl(*at, "trace", "branch-a", "--exchange", "QUICK").out
    assert none == "no IKE message matches; vpnctl trace branch-a shows all that there are\n"
    for wrong in (["trace", "branch-a", "--since", "soon"], ["trace"], ["events", "--since", "soon"]):
        done = vpnctl(*at, "--json", *wrong)
        assert (done.code, done.err) == (2, "")
        assert json.loads(done.out)["error"]["code"] in ("E-VALUE", "E-USAGE")


def test_what_comes_later_is_printed_once(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Event()

    async def rest(seconds: float) -> None:
        if looked.is_set():
            raise KeyboardInterrupt
        looked.set()

    monkeypatch.setattr(tracing, "sleep", rest)
    done = vpnctl("--json", "--socket", str(remote.socket), "trace", "branch-a", "--follow")
    assert done.code == 130
    assert [json.loads(line)["id"] for line in done.out.splitlines()] == [1, 2]


def test_a_bundle_shows_what_it_holds_and_is_for_its_owner_alone(remote: Remote, tmp_path: Path) -> None:
    at, file = ("--socket", str(remote.socket)), tmp_path / "support.tar.gz"
    done = vpnctl(*at, "trace", "--bundle", str(file), "--yes")
    assert done.code == 0, done.err
    assert "versions.json" in done.err
    assert "tunnels/branch-a: show, values, why, trace" in done.err
    assert "here/routes.txt" in done.err
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with tarfile.open(file) as archive:
        names = archive.getnames()
        content = archive.extractfile("vpnd-bundle/tunnels/branch-a/trace.json")
        assert content is not None
        assert content.read() == b"of branch-a"
    assert "vpnd-bundle/tunnels/branch-b/trace.json" in names
    before = file.read_bytes()
    again = vpnctl(*at, "--json", "trace", "branch-a", "--bundle", str(file))
    assert (again.code, json.loads(again.out)["error"]["code"]) == (1, "E-EXISTS")
    assert file.read_bytes() == before


def test_a_bundle_is_written_through_no_link_and_over_nothing(remote: Remote, tmp_path: Path) -> None:
    at = ("--json", "--socket", str(remote.socket))
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "victim")
    assert json.loads(vpnctl(*at, "trace", "--bundle", str(link)).out)["error"]["code"] == "E-EXISTS"
    assert not os.path.lexists(tmp_path / "victim")
    nowhere = tmp_path / "none" / "file"
    assert json.loads(vpnctl(*at, "trace", "--bundle", str(nowhere)).out)["error"]["code"] == "E-BUNDLE"
    unseen = tmp_path / ("n" * 300)
    assert json.loads(vpnctl(*at, "trace", "--bundle", str(unseen)).out)["error"]["code"] == "E-BUNDLE"
    one = vpnctl(*at, "trace", "branch-a", "--bundle", str(tmp_path / "one"))
    assert not any("branch-b" in name for name in json.loads(one.out)["files"])
    unknown = vpnctl(*at, "trace", "nobody", "--bundle", str(tmp_path / "two"))
    assert (unknown.code, json.loads(unknown.out)["error"]["code"]) == (2, "E-UNKNOWN-TUNNEL")
