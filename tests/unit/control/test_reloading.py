"""`vpnctl reload` while the daemon is at it."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.control.conftest import Daemon
from vpnd.control import reloading
from vpnd.control.schema import ReloadProgress
from vpnd.sdk.errors import Refused
from vpnd.sdk.transport import AsyncTransport

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def reload(daemon: Daemon) -> tuple[dict[str, object], list[str]]:
    told: list[str] = []
    return await reloading.reload(AsyncTransport(daemon.socket), told.append), told


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reloading, "FIRST_LOOK", 0.01)


async def test_a_long_reload_says_how_far_it_is(daemon: Daemon) -> None:
    operations = daemon.operations
    operations.reload_waits = asyncio.Event()
    work = asyncio.create_task(reload(daemon))

    async def looked(times: int) -> None:
        already = operations.looked
        while operations.looked < already + times:  # noqa: ASYNC110 (a fake that counts)
            await asyncio.sleep(0.005)

    await looked(2)
    operations.progress = ReloadProgress(running=True, done=3, total=500)
    await looked(2)
    operations.progress = ReloadProgress(running=True, done=499, total=500)
    await looked(2)
    operations.reload_waits.set()
    document, told = await work
    assert document["applied"] is True
    assert told == [
        "checking the files",
        "applying the configuration: 3 of 500 tunnels",
        "applying the configuration: 499 of 500 tunnels",
    ]


async def test_one_that_is_refused_is_as_before(daemon: Daemon) -> None:
    daemon.operations.tunnels["broken"] = daemon.operations.tunnels["branch-a"]
    with pytest.raises(Refused, match="nothing was changed"):
        await reload(daemon)


async def test_one_that_the_end_of_the_daemon_cuts_off_says_so(daemon: Daemon) -> None:
    daemon.operations.cut_off = True
    with pytest.raises(Refused, match="vpnd is stopping"):
        await reload(daemon)
