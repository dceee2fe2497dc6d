"""What must hold between two gateways when the network has fallen quiet."""

from __future__ import annotations

from vpnd.ike.endpoint import Endpoint
from vpnd.model.child import ChildSa
from vpnd.simulate.gateway import Gateway

from .world import World

LINGERING = 60.0
"""Seconds after which nothing is kept for the sake of a peer that may have missed an answer."""


def disagreements(
    a: Gateway, b: Gateway, tunnel_a: str | None = None, tunnel_b: str | None = None
) -> list[str]:
    """Everything in which the two ends of a tunnel differ; empty when they agree. No key is shown."""
    name_a, name_b = tunnel_a or a.tunnel, tunnel_b or b.tunnel
    wrong = []
    ike_a = sorted((sa.spi_i, sa.spi_r) for sa in a.ike_sas(name_a))
    ike_b = sorted((sa.spi_i, sa.spi_r) for sa in b.ike_sas(name_b))
    if ike_a != ike_b:
        wrong.append(f"IKE SAs differ: {a.name} has {_spis(ike_a)}, {b.name} has {_spis(ike_b)}")
    roles = {(sa.spi_i, sa.initiator) for sa in (*a.ike_sas(name_a), *b.ike_sas(name_b))}
    if len(roles) != len(ike_a) + len(ike_b):
        wrong.append("both ends of an IKE SA think that they have the same role")
    by_spi = {child.spi_in: child for child in b.children(tunnel=name_b)}
    for child in a.children(tunnel=name_a):
        other = by_spi.pop(child.spi_out, None)
        if other is None:
            wrong.append(f"{a.name} sends to SPI {child.spi_out:08x}, which {b.name} does not have")
        else:
            wrong += _pair_differences(child, other)
    wrong += [f"{b.name} sends to SPI {other.spi_out:08x}, which {a.name} lacks" for other in by_spi.values()]
    if not ike_a and (a.children(tunnel=name_a) or b.children(tunnel=name_b)):
        wrong.append("SA pairs are installed without an IKE SA")
    return wrong


def _spis(pairs: list[tuple[bytes, bytes]]) -> list[str]:
    return [f"{spi_i.hex()}/{spi_r.hex()}" for spi_i, spi_r in pairs]


def _pair_differences(one: ChildSa, two: ChildSa) -> list[str]:
    """In what the two ends of one SA pair differ; keys are compared in constant time and never printed."""
    same = {
        "inbound and outbound SPI": one.spi_in == two.spi_out and one.spi_out == two.spi_in,
        "keys from the first to the second": one.keys_out == two.keys_in,
        "keys from the second to the first": one.keys_in == two.keys_out,
        "both directions' keys must not be equal": one.keys_in != one.keys_out,
        "suite": one.suite == two.suite,
        "traffic selectors": one.ts_local == two.ts_remote and one.ts_remote == two.ts_local,
        "UDP encapsulation": one.udp == two.udp,
        "exactly one initiator": one.initiator != two.initiator,
    }
    return [f"{what} (SPI {one.spi_in:08x}/{one.spi_out:08x})" for what, holds in same.items() if not holds]


def leaks(gateway: Gateway) -> list[str]:
    """What an endpoint holds beyond its established IKE SAs and the SA pairs that it has announced.

    Only for a quiet moment: an exchange under way rightly holds an SPI.
    """
    endpoint = gateway.endpoint
    if not isinstance(endpoint, Endpoint):
        return []
    held = endpoint.snapshot()
    wrong = []
    spis = held.esp_spis ^ set(gateway.installed)
    if spis:
        wrong.append(f"{gateway.name} keeps the inbound SPIs {[f'{spi:08x}' for spi in sorted(spis)]}")
    sessions = len(held.sas)
    known = sum(len(gateway.ike_sas(tunnel)) for tunnel in gateway.policies)
    if sessions != known:
        wrong.append(f"{gateway.name} keeps {sessions} sessions for {known} IKE SAs")
    if not sessions and (held.deadlines or held.first_messages or held.half_open):
        wrong.append(f"{gateway.name} keeps timers or half-open state of sessions that are gone")
    return wrong


def assert_agreement(world: World, a: Gateway, b: Gateway) -> None:
    """Fail, with the world's history, unless both ends hold the same SAs."""
    wrong = disagreements(a, b)
    if wrong:
        world.fail("the two ends disagree: " + "; ".join(wrong))


def assert_one_tunnel(world: World, a: Gateway, b: Gateway, mappings: int = 1) -> None:
    """Both ends agree, on one IKE SA and one SA pair for each of the first `mappings` mappings."""
    assert_agreement(world, a, b)
    for gateway in (a, b):
        held = sorted(child.mapping for child in gateway.children())
        if len(gateway.ike_sas()) != 1 or held != list(range(mappings)):
            world.fail(
                f"{gateway.name} holds {len(gateway.ike_sas())} IKE SAs and SA pairs for mappings {held}"
            )


def assert_nothing_left(world: World, a: Gateway, b: Gateway) -> None:
    """No IKE SA and no SA pair on either side, and once answers are no more repeated, no trace of one."""
    world.run_for(LINGERING)
    for gateway in (a, b):
        wrong = leaks(gateway)
        if wrong:
            world.fail("; ".join(wrong))
        if gateway.ike_sas() or gateway.installed:
            world.fail(
                f"{gateway.name} still holds {len(gateway.ike_sas())} IKE SAs, {len(gateway.installed)} pairs"
            )
