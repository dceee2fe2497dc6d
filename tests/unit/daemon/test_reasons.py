"""What `vpnctl why` says: the failure that stands before what is over, with the file and line to change."""

from __future__ import annotations

import asyncio
import json
import stat
from ipaddress import ip_network
from typing import Any

import pytest

from tests.unit.daemon.pairs import Pair, with_pair
from tests.unit.daemon.test_stories import BACK, ROUTED, up
from vpnd.config.kept import REASONS_FILE
from vpnd.daemon.kept_reasons import KeptReasons
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.unreachable import Unreachable


def why_of(pair: Pair) -> Any:
    """What `vpnctl why` says at hq."""
    return pair.hq.operator.why("t")


async def differ(pair: Pair, here: str, there: str) -> None:
    """Both ends begin with these tables, which do not fit."""
    pair.configure({"t": f"{ROUTED}\n{here}"}, {"t": f"{BACK}\n{there}"})
    await pair.start()


@with_pair
async def test_the_value_to_change_has_its_file_and_line(pair: Pair) -> None:
    await differ(pair, "ike.dh_group = 31", "ike.dh_group = 14")
    await pair.until(lambda: why_of(pair).error is not None)
    (where,) = (w for w in why_of(pair).explanation.where if w.key == "ike.dh_group")
    line = 1 + pair.hq.config.read_text().splitlines().index("ike.dh_group = 31")
    assert (where.value, where.place, where.written) == ([31], f"{pair.hq.config}:{line}", True)


@with_pair
async def test_a_default_is_shown_with_the_table_that_it_would_stand_in(pair: Pair) -> None:
    await differ(pair, "", "ike.dh_group = 31")
    await pair.until(lambda: why_of(pair).error is not None)
    (where,) = (w for w in why_of(pair).explanation.where if w.key == "ike.dh_group")
    line = 1 + pair.hq.config.read_text().splitlines().index("[tunnels.t]")
    assert (where.place, where.written) == (f"{pair.hq.config}:{line}", False)


@with_pair
async def test_while_an_attempt_goes_on_what_was_sent_and_came_is_counted(pair: Pair) -> None:
    pair.wire.cut = True
    await differ(pair, "", "")
    await asyncio.sleep(1)
    assert why_of(pair).error is None
    await asyncio.sleep(7)
    why = why_of(pair)
    assert why.attempt is not None
    assert (why.attempt.received, why.attempt.port, why.attempt.since_s) == (0, 500, 8)
    assert why.attempt.sent >= 4
    assert (why.error.code, why.standing, why.so_far) == ("E-SILENT", True, True)
    assert f"{why.attempt.sent} sent, 0 received" in why.explanation.what
    assert pair.hq.operator.tunnel("t").attempt == why.attempt


@pytest.mark.parametrize(
    ("reason", "code", "words"),
    [
        (Unreachable.PORT, "E-PORT", "nothing listens for IKE"),
        (Unreachable.HOST, "E-UNREACHABLE", "the network cannot reach"),
        (
            Unreachable.PROHIBITED,
            "E-UNREACHABLE",
            "a firewall on the way, or at the peer, does not let UDP 500",
        ),
        (Unreachable.FORBIDDEN_HERE, "E-UNREACHABLE", "a firewall on this machine does not let UDP 500"),
    ],
)
@pytest.mark.parametrize("version", ["ikev1", "ikev2"])
@with_pair
async def test_what_icmp_says_is_known_at_once(
    pair: Pair, reason: Unreachable, code: str, words: str, version: str
) -> None:
    pair.wire.cut = True
    await differ(pair, f'ike.version = "{version}"', f'ike.version = "{version}"')
    path = Path(pair.hq.address, 500, pair.branch.address, 500)
    pair.hq.service.gateway.on_unreachable(path, reason)
    await asyncio.sleep(3)
    why = why_of(pair)
    assert (why.error.code, why.so_far) == (code, True)
    assert why.explanation.what.startswith(words)


@with_pair
async def test_what_an_attempt_meets_now_counts_more_than_how_the_one_before_ended(pair: Pair) -> None:
    await differ(pair, "ike.dh_group = 31", "ike.dh_group = 14")
    await pair.until(lambda: why_of(pair).standing)
    assert why_of(pair).error.code.startswith("E-P1")
    pair.wire.cut = True
    await pair.until(lambda: why_of(pair).error.code == "E-SILENT")


@with_pair
async def test_what_is_healed_is_history(pair: Pair) -> None:
    await up(pair)
    pair.wire.cut = True
    await pair.until(lambda: why_of(pair).standing, 120)
    assert why_of(pair).error.code == "E-DPD"
    pair.wire.cut = False
    await pair.until(lambda: pair.state()[0] == "up", 120)
    why = why_of(pair)
    assert (why.error.code, why.standing) == ("E-DPD", False)


@with_pair
async def test_the_last_words_are_kept_for_the_owner_alone(pair: Pair) -> None:
    await differ(pair, "ike.dh_group = 31", "ike.dh_group = 14")
    await pair.until(lambda: why_of(pair).standing)
    kept = KeptReasons(pair.hq.service, pair.hq.operator.why, pair.hq.state)
    await kept.keep()
    path = pair.hq.state / REASONS_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    document = json.loads(path.read_text())
    assert document["tunnels"]["t"]["error"]["code"].startswith("E-P1")
    assert document["tunnels"]["t"]["explanation"]["change"]
    path.unlink()
    await kept.keep()
    assert not path.exists(), "nothing has changed"
    pair.configure({}, {})
    await pair.hq.operator.reload()
    await kept.keep()
    assert json.loads(path.read_text())["tunnels"] == {}


@with_pair
async def test_a_disk_that_takes_nothing_is_a_warning(pair: Pair) -> None:
    await differ(pair, "", "")
    (pair.hq.directory / "file").write_text("")
    kept = KeptReasons(pair.hq.service, pair.hq.operator.why, pair.hq.directory / "file")
    await kept.keep()


@with_pair
async def test_a_key_that_looks_wrong_is_what_to_change_first(pair: Pair) -> None:
    pair.configure({"t": ROUTED}, {"t": BACK})
    text = pair.hq.config.read_text()
    key = next(line for line in text.splitlines() if line.startswith("pre_shared_key"))
    pair.hq.write(text.replace(key, f'{key[:-1]} "'))
    await pair.start()
    await pair.until(lambda: why_of(pair).error is not None)
    explanation = why_of(pair).explanation
    assert explanation.code == "E-PSK"
    assert "W-PSK-SPACE" in explanation.also_possible[0]
    first, _, rest = explanation.change.partition("; else ")
    assert first in explanation.also_possible[0]
    assert rest.startswith("put the same key on both sides")
    assert any(where.key == "pre_shared_key" for where in explanation.where)


@with_pair
async def test_a_health_check_that_fails_is_the_reason_while_the_tunnel_is_up(pair: Pair) -> None:
    await up(pair)
    gateway = pair.hq.service.gateway
    failing = Diagnosis.of(Code.HEALTH, ours="169.254.128.1", theirs="169.254.128.2", sent=3)
    gateway.tunnels["t"].set_health(gateway.clock.now(), failing)
    why = why_of(pair)
    assert (why.error.code, why.standing, why.state) == ("E-NQA", True, "unhealthy")
    assert "3 probes in a row from 169.254.128.1 to 169.254.128.2" in why.explanation.what
    assert "the address 169.254.128.2" in why.explanation.change
    impaired = pair.hq.operator.tunnel("t").impaired
    assert impaired is not None
    assert impaired.code == "E-NQA"
    pair.wire.cut = True
    await pair.until(lambda: why_of(pair).error.code == "E-DPD", 120)
    assert pair.hq.operator.tunnel("t").impaired is None


SWAPPED = 'communication = "spd-policy"\nspd = [{ local = ["10.2.0.0/24"], remote = ["10.1.0.0/24"] }]\n'


@pytest.mark.parametrize(("inside", "said"), [("10.1.0.0/24", True), ("10.2.0.0/25", False), (None, False)])
@with_pair
async def test_a_local_range_that_is_on_no_interface_is_told(
    pair: Pair, inside: str | None, said: bool
) -> None:
    pair.hq.host.inside = frozenset({ip_network(inside)} if inside else ())
    pair.configure({"t": SWAPPED}, {"t": f'{SWAPPED}negotiation = "passive"'})
    await pair.start()
    await pair.until(lambda: why_of(pair).error is not None and why_of(pair).error.code == "E-TS")
    also = " ".join(why_of(pair).explanation.also_possible)
    assert ("our local range 10.2.0.0/24 is on no interface here" in also) is said
