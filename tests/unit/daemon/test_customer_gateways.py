"""Customer gateways as resources: made, changed and forgotten over the API, with the tunnels to them."""

from __future__ import annotations

import pytest

from tests.unit.daemon.fakes import KEY
from tests.unit.daemon.pairs import Pair, with_pair
from tests.unit.daemon.test_operations import BACK, ROUTED
from vpnd.config.load import load
from vpnd.control.operations import Conflict, InvalidConfiguration, OperationError, UnknownCustomerGateway

TABLE = {"customer_gateway": "site", "pre_shared_key": f"plain:{KEY}", "routes": ["10.2.0.0/16"]}
HERE = {"address": "192.0.2.2"}


async def begin(pair: Pair) -> None:
    pair.configure({}, {"t": BACK})
    await pair.start()


@with_pair
async def test_a_tunnel_refers_to_one_by_name(pair: Pair) -> None:
    await begin(pair)
    operator = pair.hq.operator
    made = await operator.put_customer_gateway("site", HERE)
    assert (made.customer_gateway, made.change, made.tunnels) == ("site", "created", [])
    assert (await operator.put_tunnel("t", TABLE)).change == "created"
    await pair.until(lambda: pair.state() == ("up", "up"))
    assert operator.tunnel("t").customer_gateway == "site"
    found = operator.customer_gateway("site")
    assert (found.tunnels, found.from_api) == (["t"], True)
    file = pair.hq.state / "customer_gateways.d/site.toml"
    assert found.source == f"{file}:1"
    assert file.stat().st_mode & 0o777 == 0o600
    again = load(pair.hq.config, pair.hq.state)
    assert again.ok, "what is kept is there at the next start"
    assert "site" in again.configuration.customer_gateways


@with_pair
async def test_its_tunnels_change_with_it_and_no_other(pair: Pair) -> None:
    pair.configure({"other": 'routes = ["10.9.0.0/16"]\nnegotiation = "passive"'}, {"t": BACK})
    await pair.start()
    operator = pair.hq.operator
    await operator.put_customer_gateway("site", {"address": "192.0.2.77"})
    await operator.put_tunnel("t", TABLE)
    assert pair.state() != ("up", "up")
    changed = await operator.put_customer_gateway("site", HERE)
    assert (changed.change, changed.tunnels) == ("changed", ["t"])
    await pair.until(lambda: pair.state() == ("up", "up"))
    same = await operator.put_customer_gateway("site", HERE)
    assert (same.change, same.tunnels) == ("unchanged", [])
    assert pair.state() == ("up", "up")


@with_pair
async def test_one_that_is_used_stays(pair: Pair) -> None:
    await begin(pair)
    operator = pair.hq.operator
    await operator.put_customer_gateway("site", HERE)
    await operator.put_tunnel("t", TABLE)
    with pytest.raises(Conflict, match="site is the customer gateway of t") as refused:
        await operator.delete_customer_gateway("site")
    assert refused.value.code == "E-IN-USE"
    assert operator.customer_gateway("site").tunnels == ["t"]
    await operator.delete_tunnel("t")
    assert (await operator.delete_customer_gateway("site")).change == "removed"
    assert not list((pair.hq.state / "customer_gateways.d").iterdir())
    with pytest.raises(UnknownCustomerGateway):
        await operator.delete_customer_gateway("site")


@with_pair
async def test_those_of_files_are_read_only(pair: Pair) -> None:
    pair.configure({"t": ROUTED}, {"t": BACK})
    await pair.start()
    operator = pair.hq.operator
    assert not operator.customer_gateway("other").from_api
    for change in (
        operator.put_customer_gateway("other", HERE),
        operator.delete_customer_gateway("other"),
    ):
        with pytest.raises(Conflict, match=f"other is defined in {pair.hq.config}:4") as refused:
            await change
        assert refused.value.code == "E-FROM-FILE"


@with_pair
async def test_one_in_a_tunnels_own_table_is_no_resource(pair: Pair) -> None:
    await begin(pair)
    operator = pair.hq.operator
    await operator.put_tunnel("t", {**TABLE, "customer_gateway": HERE})
    assert [one.name for one in operator.customer_gateways()] == ["other"]
    with pytest.raises(UnknownCustomerGateway):
        operator.customer_gateway("tunnels.t.customer_gateway")
    with pytest.raises(OperationError):
        await operator.put_customer_gateway("tunnels.t.customer_gateway", {"address": "192.0.2.9"})
    assert pair.hq.service.policy.tunnels[0].remote == "192.0.2.2"


@with_pair
@pytest.mark.parametrize(
    ("name", "table", "code", "key"),
    [
        ("site", {}, "E-MISSING", "customer_gateways.site.address"),
        ("site", {"address": "not an address"}, "E-ADDRESS", "customer_gateways.site.address"),
        ("site", {"address": 7}, "E-TYPE", "customer_gateways.site.address"),
        ("site", {"adress": "192.0.2.2"}, "E-KEY", "customer_gateways.site.adress"),
        ("x" * 61, HERE, "E-NAME", f"customer_gateways.{'x' * 61}"),
        ("a/b", HERE, "E-NAME", 'customer_gateways."a/b"'),
        ("tunnels.new.customer_gateway", HERE, "E-NAME", 'customer_gateways."tunnels.new.customer_gateway"'),
    ],
)
async def test_what_is_wrong_is_named_and_changes_nothing(
    pair: Pair, name: str, table: dict[str, object], code: str, key: str
) -> None:
    await begin(pair)
    with pytest.raises(InvalidConfiguration) as refused:
        await pair.hq.operator.put_customer_gateway(name, table)
    found = {(problem.code, problem.key) for problem in refused.value.problems}
    assert (code, key) in found, found
    assert [one.name for one in pair.hq.operator.customer_gateways()] == ["other"]
    assert not (pair.hq.state / "customer_gateways.d").exists()


@with_pair
async def test_what_its_tunnels_cannot_have_is_refused(pair: Pair) -> None:
    """A peer of any address begins: an active tunnel to it is an error, so the gateway stays as it is."""
    await begin(pair)
    operator = pair.hq.operator
    await operator.put_customer_gateway("site", HERE)
    await operator.put_tunnel("t", TABLE)
    with pytest.raises(InvalidConfiguration):
        await operator.put_customer_gateway("site", {"address": "any"})
    assert operator.customer_gateway("site").address == "192.0.2.2"
    await pair.until(lambda: pair.state() == ("up", "up"))
