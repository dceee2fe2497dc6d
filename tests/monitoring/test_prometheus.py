"""A real Prometheus scrapes vpnd: alerts fire and resolve, and every query of the dashboard has an answer."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab.lab import Lab, Namespace, write
from tests.lab.plan import A, B, End, HealthCheck, Plan
from tests.lab.process import CommandFailed, run, wait_until
from tests.lab.strongswan import StrongSwan
from tests.lab.traffic import require_ping
from tests.lab.vpnd import Vpnd

pytestmark = [pytest.mark.root, pytest.mark.strongswan, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
CONF = ROOT / "conf/prometheus"
PATIENCE = 120
"""Seconds for a busy machine; a scrape and an evaluation take one."""
NAME = "分支机构-" + "b" * 55
"""Sixty characters, and not all of them ASCII."""

CHECKED = End("c", "192.0.2.3", "192.0.2.3", "10.3.0.1", ("10.3.0.0/24",))
PEER = Plan(name="branch", interface="vpn-branch", negotiation="active")
"""To strongSwan."""
HEALTHY = Plan(
    name=NAME,
    interface="vpn-healthy",
    negotiation="active",
    remote=CHECKED,
    routed=True,
    health=HealthCheck("169.254.128.1", "169.254.128.2"),
)
"""To another vpnd, with a health check."""
WRONG = Plan(
    name="wrong-key",
    interface="vpn-wrong",
    negotiation="active",
    local=End("a", A.address, "wrong.example", "10.9.0.1", ("10.9.0.0/24",)),
    psk="a-key-that-the-peer-does-not-have",
)


@dataclass
class Monitored:
    """A gateway with three tunnels, its peers, and the Prometheus beside it."""

    ours: Vpnd
    peer: StrongSwan
    namespace: Namespace

    def ask(self, query: str) -> list[dict[str, Any]]:
        """What Prometheus answers at this moment: series with labels and a value."""
        command = ("promtool", "query", "instant", "-o", "json", "http://127.0.0.1:9090", query)
        found: list[dict[str, Any]] = json.loads(self.namespace.run(*command).stdout)
        return found

    def firing(self) -> set[tuple[str, str]]:
        """Names and tunnels of the alerts that fire."""
        found = (series["metric"] for series in self.ask('ALERTS{alertstate="firing"}'))
        return {(labels["alertname"], labels.get("tunnel", "")) for labels in found}

    def wait_for(self, query: str) -> list[dict[str, Any]]:
        """The answer, as soon as there is one. Raises TimeoutError."""
        found: list[dict[str, Any]] = []

        def answered() -> bool:
            found[:] = self.ask(query)
            return bool(found)

        wait_until(answered, f"Prometheus to answer {query}", PATIENCE, 0.5)
        return found


def quick(rules: str) -> str:
    """The same rules for a test: what holds for minutes is to hold for seconds."""
    return re.sub(r"\[\d+[mh]\]", "[20s]", re.sub(r"for: \d+m", "for: 2s", rules))


def three_ends(lab: Lab) -> tuple[Namespace, Namespace, Namespace]:
    """Our gateway and two peers on one bridge."""
    a, b, c = (lab.namespace(label) for label in "abc")
    a.ip("link", "add", "eth0", "type", "bridge")
    a.ip("link", "set", "eth0", "up")
    for namespace, end in ((b, B), (c, CHECKED)):
        lab.link(a, namespace, f"lan{end.label}", "eth0")
        a.ip("link", "set", f"lan{end.label}", "master", "eth0")
        namespace.add_address(f"{end.address}/24", "eth0")
        namespace.add_address(f"{end.inside}/32")
    a.add_address(f"{A.address}/24", "eth0")
    a.add_address(f"{A.inside}/32")
    return a, b, c


def start_prometheus(lab: Lab, namespace: Namespace) -> None:
    directory = lab.directory / "prometheus"
    config = (CONF / "prometheus.yml").read_text().replace("15s", "1s")
    rules = write(directory / "vpnd.rules.yml", quick((CONF / "vpnd.rules.yml").read_text()))
    config = config.replace("/etc/prometheus/vpnd.rules.yml", str(rules))
    path = write(directory / "prometheus.yml", f"global:\n  evaluation_interval: 1s\n{config}")
    namespace.spawn(
        "prometheus",
        f"--config.file={path}",
        f"--storage.tsdb.path={directory}/data",
        "--web.listen-address=127.0.0.1:9090",
        log="prometheus.log",
    )


@pytest.fixture(scope="module")
def monitored() -> Iterator[Monitored]:
    with Lab() as lab:
        a, b, c = three_ends(lab)
        peer = StrongSwan(b)
        peer.replace(PEER.other(), WRONG.other().change(psk="what-the-peer-has-in-its-place"))
        Vpnd(c, CHECKED.address, plans=[HEALTHY.other().change(negotiation="passive")])
        ours = Vpnd(a, A.address, plans=[PEER, HEALTHY, WRONG], running=False)
        with ours.config.open("a") as file:
            file.write('[metrics]\nlisten = "127.0.0.1:9150"\n')
        ours.start()
        start_prometheus(lab, a)
        for plan in (PEER, HEALTHY):
            ours.wait_state(plan.name, "up")
        yield Monitored(ours, peer, a)


def test_the_rules_are_right_and_do_what_their_tests_say() -> None:
    run(["promtool", "check", "rules", str(CONF / "vpnd.rules.yml")])
    run(["promtool", "check", "config", "--syntax-only", str(CONF / "prometheus.yml")])
    run(["promtool", "test", "rules", str(Path(__file__).parent / "vpnd.rules.test.yml")])


def test_each_alert_has_a_test() -> None:
    tests = (Path(__file__).parent / "vpnd.rules.test.yml").read_text()
    rules = re.findall(r"alert: (\w+)", (CONF / "vpnd.rules.yml").read_text())
    assert rules
    assert [name for name in rules if f"alertname: {name}\n" not in tests] == []


@pytest.mark.parametrize("rule", ["for: 5m", "> 0.05", "> 6", "> 5\n", "> 1\n", "== 0", 'state="unhealthy"'])
def test_the_tests_of_the_rules_see_another_rule(rule: str, tmp_path: Path) -> None:
    """A test that passes whatever the rules say tells nothing."""
    other = {"for: 5m": "for: 1h", "== 0": "== 2", 'state="unhealthy"': 'state="up"'}.get(rule, "> 99999\n")
    text = (CONF / "vpnd.rules.yml").read_text()
    assert rule in text
    changed = write(tmp_path / "vpnd.rules.yml", text.replace(rule, other))
    tests = (Path(__file__).parent / "vpnd.rules.test.yml").read_text()
    path = write(tmp_path / "test.yml", tests.replace("../../conf/prometheus/vpnd.rules.yml", str(changed)))
    with pytest.raises(CommandFailed):
        run(["promtool", "test", "rules", str(path)])


def test_the_text_is_as_prometheus_wants_it(monitored: Monitored) -> None:
    """By socket and by port: the same metrics, and nothing for its linter to say."""
    # Jitter is between two probes.
    wait_until(lambda: b"\nvpnd_health_jitter_seconds{" in monitored.ours.ask("GET", "/metrics")[1], "jitter")
    _, by_socket = monitored.ours.ask("GET", "/metrics")
    program = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9150/metrics').read().decode())"
    by_port = monitored.namespace.run("/usr/bin/python3", "-c", program).stdout
    for text in (by_socket.decode(), by_port):
        said = subprocess.run(
            ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
        )
        assert (said.returncode, said.stdout, said.stderr) == (0, "", "")
    assert _names(by_socket.decode()) == _names(by_port)


def _names(text: str) -> list[str]:
    return re.findall(r"^# TYPE (\S+)", text, re.M)


def test_prometheus_scrapes_each_tunnel(monitored: Monitored) -> None:
    (up,) = monitored.wait_for('up{job="vpnd"} == 1')
    assert up["metric"]["instance"] == "127.0.0.1:9150"
    found = monitored.wait_for("vpnd_tunnel_up")
    assert {series["metric"]["tunnel"]: series["value"][1] for series in found} == {
        PEER.name: "1",
        NAME: "1",
        WRONG.name: "0",
    }


def test_every_query_of_the_dashboard_returns_data(monitored: Monitored) -> None:
    board = json.loads((CONF / "vpnd.grafana.json").read_text())
    require_ping(monitored.namespace, A.inside, B.inside)
    monitored.wait_for('rate(vpnd_mapping_bytes_total{tunnel="branch"}[20s]) > 0')
    monitored.wait_for("vpnd_health_jitter_seconds")
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len(queries) > 30
    assert len(set(queries)) == len(queries)
    for query in queries:
        asked = query.replace("$__rate_interval", "20s").replace("[1h]", "[20s]")
        asked = re.sub(r"\$(instance|tunnel|job)", ".*", asked)
        assert "$" not in asked
        assert monitored.wait_for(asked), query
    variables = [one["definition"] for one in board["templating"]["list"] if one["type"] == "query"]
    for metric in (re.sub(r"label_values\((\w+).*", r"\1", one) for one in variables):
        assert monitored.ask(metric)


def test_every_metric_is_on_the_dashboard(monitored: Monitored) -> None:
    board = (CONF / "vpnd.grafana.json").read_text()
    _, text = monitored.ours.ask("GET", "/metrics")
    assert [name for name in _names(text.decode()) if name not in board] == []


def test_an_alert_fires_for_a_tunnel_that_is_down_and_resolves(monitored: Monitored) -> None:
    down, wrong = ("VpndTunnelDown", PEER.name), ("VpndTunnelDown", WRONG.name)
    wait_until(lambda: wrong in monitored.firing(), "the alert of the wrong key", PATIENCE, 0.5)
    assert down not in monitored.firing()
    assert ("VpndTunnelDown", NAME) not in monitored.firing()
    monitored.peer.kill()
    # Dead peer detection would find out by itself, in 30 s.
    monitored.ours.ctl("reset", PEER.name, check=False)
    wait_until(lambda: down in monitored.firing(), "the alert of the dead peer", PATIENCE, 0.5)
    assert ("VpndTunnelDown", NAME) not in monitored.firing()
    again = StrongSwan(monitored.peer.namespace)
    again.replace(PEER.other())
    assert monitored.ours.up(PEER.name, 60).returncode == 0
    wait_until(lambda: down not in monitored.firing(), "the alert to resolve", PATIENCE, 0.5)
    assert wrong in monitored.firing()


def test_an_alert_says_that_the_daemon_is_gone(monitored: Monitored) -> None:
    """The last test: vpnd is stopped and started again."""
    gone = ("VpndUnreachable", "")
    assert gone not in monitored.firing()
    monitored.ours.stop()
    wait_until(lambda: gone in monitored.firing(), "the alert of the daemon", PATIENCE, 0.5)
    monitored.ours.start()
    wait_until(lambda: gone not in monitored.firing(), "the alert to resolve", PATIENCE, 0.5)
