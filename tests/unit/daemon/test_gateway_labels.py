"""Region, type and VPC of the gateway over the API: kept over a start, and what a file says holds."""

from __future__ import annotations

import pytest

from tests.unit.daemon.pairs import Pair, with_pair
from tests.unit.daemon.test_operations import BACK, ROUTED
from vpnd.config.load import load
from vpnd.control.operations import Conflict, InvalidConfiguration

LABELS = {"type": "vpc", "vpc": "vpc-1", "region": "eu-1"}


async def begin(pair: Pair) -> None:
    pair.configure({"t": ROUTED}, {"t": BACK})
    await pair.start()
    await pair.until(lambda: pair.state() == ("up", "up"))


@with_pair
async def test_they_are_set_and_kept_and_no_tunnel_is_touched(pair: Pair) -> None:
    await begin(pair)
    operator = pair.hq.operator
    before = operator.tunnel("t").ike_sas
    found = operator.gateway_detail()
    assert (found.type, found.vpc, found.region, found.from_api) == (None, None, None, True)
    assert found.source == f"{pair.hq.config}:1"
    assert (await operator.put_gateway(LABELS)).change == "changed"
    assert (await operator.put_gateway(LABELS)).change == "unchanged"
    shown = operator.status().gateway
    assert (shown.type, shown.vpc, shown.region) == ("vpc", "vpc-1", "eu-1")
    assert [sa.spi_i for sa in operator.tunnel("t").ike_sas] == [sa.spi_i for sa in before]
    assert pair.state() == ("up", "up")
    file = pair.hq.state / "gateway.toml"
    assert file.stat().st_mode & 0o777 == 0o600
    again = load(pair.hq.config, pair.hq.state)
    assert again.ok, "what is kept is there at the next start"
    assert again.configuration.gateway is not None
    assert again.configuration.gateway.region == "eu-1"


@with_pair
async def test_what_is_left_out_goes(pair: Pair) -> None:
    await begin(pair)
    operator = pair.hq.operator
    await operator.put_gateway(LABELS)
    await operator.put_gateway({"type": "ccn", "vpc": None})
    shown = operator.gateway()
    assert (shown.type, shown.vpc, shown.region) == ("ccn", None, None)
    await operator.put_gateway({"type": None, "region": "eu-2"})
    assert (operator.gateway().type, operator.gateway().region) == (None, "eu-2")
    await operator.put_gateway({})
    assert operator.gateway().region is None


@with_pair
@pytest.mark.parametrize("line", ['region = "file"', 'type = "ccn"', 'vpc = "v"'])
async def test_the_file_holds_where_it_has_one_of_them(pair: Pair, line: str) -> None:
    await begin(pair)
    operator = pair.hq.operator
    await operator.put_gateway(LABELS)
    text = pair.hq.config.read_text()
    pair.hq.config.write_text(text.replace("[gateway]\n", f"[gateway]\n{line}\n"))
    await operator.reload()
    key, value = line.replace('"', "").split(" = ")
    shown = operator.gateway_detail()
    assert {label: getattr(shown, label) for label in LABELS} == {**dict.fromkeys(LABELS), key: value}
    assert (shown.from_api, shown.source) == (False, f"{pair.hq.config}:2")
    with pytest.raises(
        Conflict, match=f"the {key} of the gateway is defined in {pair.hq.config}:2"
    ) as refused:
        await operator.put_gateway(LABELS)
    assert refused.value.code == "E-FROM-FILE"
    pair.hq.config.write_text(text)
    await operator.reload()
    assert operator.gateway().region == "eu-1", "it was kept meanwhile"


@with_pair
@pytest.mark.parametrize(
    ("labels", "code", "key"),
    [
        ({"type": "idc"}, "E-VALUE", "gateway.type"),
        ({"type": "ccn", "vpc": "vpc-1"}, "E-GATEWAY", "gateway.vpc"),
        ({"region": 7}, "E-TYPE", "gateway.region"),
        ({"region": "x" * 201}, "E-RANGE", "gateway.region"),
        ({"vpc": "a\nb"}, "E-VALUE", "gateway.vpc"),
        ({"name": "other"}, "E-KEY", "gateway.name"),
        ({"address": "192.0.2.9"}, "E-KEY", "gateway.address"),
        ({"vcp": None}, "E-KEY", "gateway.vcp"),
    ],
)
async def test_what_is_wrong_is_named_and_changes_nothing(
    pair: Pair, labels: dict[str, object], code: str, key: str
) -> None:
    await begin(pair)
    operator = pair.hq.operator
    await operator.put_gateway(LABELS)
    with pytest.raises(InvalidConfiguration) as refused:
        await operator.put_gateway(labels)
    assert [(problem.code, problem.key) for problem in refused.value.problems] == [(code, key)]
    assert operator.gateway().region == "eu-1"
    assert load(pair.hq.config, pair.hq.state).ok
