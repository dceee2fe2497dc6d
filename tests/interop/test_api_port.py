"""The API over TCP of a real daemon: on by a reload, with tokens that outlive a restart, and off again."""

from __future__ import annotations

import pytest

from tests.lab.lab import Lab, write
from tests.lab.process import wait_until
from tests.lab.vpnd import Vpnd
from tests.unit.control import certificates
from tests.unit.control.test_exporter import LOOPBACK
from vpnd.sdk import Client, DaemonUnreachable, Refused

pytestmark = [pytest.mark.root, pytest.mark.slow]

API = '[api]\nlisten = "{at}"\ncertificate = "{pair.certificate}"\nkey = "{pair.key}"\n'
AT = f"{LOOPBACK}:8443"


def test_the_api_is_served_over_tcp_as_long_as_the_configuration_says_so(lab: Lab) -> None:
    gateway = lab.namespace("a")
    ours = Vpnd(gateway, "192.0.2.1")
    pair = certificates.make(lab.directory / "tls")
    made = {
        role: ours.ctl("token", "create", role, "--role", role).stdout.strip() for role in ("read", "admin")
    }

    def client(role: str) -> Client:
        return Client(f"https://{AT}", token=made[role], certificate=pair.certificate)

    def ends() -> bool:
        try:
            client("admin").status()
        except DaemonUnreachable:
            return True
        return False

    file = ours.directory / "tunnels.d/api.toml"
    with gateway.entered():
        assert ends(), "it is off by default"
        write(file, API.format(at=AT, pair=pair), mode=0o600)
        ours.ctl("reload")
        wait_until(lambda: not ends(), "the port")
        assert client("read").status().gateway.name == "a"
        with pytest.raises(Refused, match="is for reading only"):
            client("read").reload()
        assert client("admin").reload().applied
        said = list(client("read").events(follow=False, event=["command"]))
        assert said[-1].by == "token admin from 127.0.0.1"
        ours.stop()
        ours.start()
        wait_until(lambda: not ends(), "the port after a restart")
        ours.ctl("token", "revoke", "read")
        with pytest.raises(Refused, match="the token is not valid"):
            client("read").status()
        assert client("admin").status().gateway.name == "a"
        file.unlink()
        ours.ctl("reload")
        wait_until(ends, "the end of the port")
    assert not [token for token in made.values() if token in ours.log()]
