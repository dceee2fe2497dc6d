"""What silence means, by what ICMP said of the path on which it is silent, and of no other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tests.simulation.policies import ADDRESS_A, ADDRESS_B
from vpnd.ike.unanswered import unanswered
from vpnd.model.child import Path
from vpnd.model.diagnosis import Code
from vpnd.model.unreachable import Unreachable

ON_500, ON_4500 = (Path(ADDRESS_A, port, ADDRESS_B, port) for port in (500, 4500))


def sa(
    path: Path,
    told: tuple[Path, Unreachable] | None,
    way: tuple[Unreachable, str | None] | None = None,
) -> Any:
    return SimpleNamespace(path=path, attempt=SimpleNamespace(unreachable=told, way=way))


@pytest.mark.parametrize(
    ("path", "reason", "code"),
    [
        (ON_500, Unreachable.PORT, Code.PORT_CLOSED),
        (ON_500, Unreachable.HOST, Code.UNREACHABLE),
        (ON_500, Unreachable.PROHIBITED, Code.UNREACHABLE),
        (ON_500, Unreachable.FORBIDDEN_HERE, Code.UNREACHABLE),
        (ON_4500, Unreachable.PORT, Code.UDP_4500),
        (ON_4500, Unreachable.HOST, Code.UNREACHABLE),
        (ON_4500, Unreachable.PROHIBITED, Code.UDP_4500),
        (ON_4500, Unreachable.FORBIDDEN_HERE, Code.UNREACHABLE),
    ],
)
def test_what_icmp_says_decides(path: Path, reason: Unreachable, code: Code) -> None:
    found = unanswered(sa(path, (path, reason)), Code.SILENT, {})
    assert found.code is code
    assert found.fact("cause") == reason.name.lower()
    assert found.fact("port") == str(path.remote_port)


@pytest.mark.parametrize("told", [None, (ON_500, Unreachable.PROHIBITED)])
def test_what_was_said_of_another_path_or_not_at_all_does_not(
    told: tuple[Path, Unreachable] | None,
) -> None:
    found = unanswered(sa(ON_4500, told), Code.UDP_4500, {"sent": 3})
    assert (found.code, found.fact("cause"), found.fact("sent")) == (Code.UDP_4500, None, "3")


@pytest.mark.parametrize("path", [ON_500, ON_4500])
@pytest.mark.parametrize(
    ("way", "code", "ours"),
    [
        ((Unreachable.NO_ROUTE, None), Code.UNREACHABLE, None),
        ((Unreachable.INTO_TUNNEL, "vpn-t"), Code.LOCAL_ROUTE, "vpn-t"),
    ],
)
def test_what_the_routes_of_this_machine_say_comes_first(
    path: Path, way: tuple[Unreachable, str | None], code: Code, ours: str | None
) -> None:
    found = unanswered(sa(path, (path, Unreachable.PROHIBITED), way), Code.SILENT, {"ours": "another fact"})
    assert (found.code, found.fact("cause"), found.fact("ours")) == (code, way[0].name.lower(), ours)
