"""What people read: status in 80 columns, durations and sizes in human units, colours on terminals only.

Everything here takes the API's JSON as it came, and makes lines of `rich` text. What a peer said goes
through `clean`, so that it cannot forge a line or steer the terminal.
"""

from __future__ import annotations

import json as jsonlib
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from vpnd.model.text import printable

Json = Mapping[str, Any]

STATE_STYLE = {"up": "green", "unhealthy": "yellow", "connecting": "yellow", "waiting": "dim", "down": "red"}
MIN_NAME = 10
MIN_PEER = 7
GAP = "  "


def clean(value: object) -> str:
    """Text that is safe on a terminal: what is not printable is escaped."""
    return printable(str(value))


def duration(seconds: float | None) -> str:
    """`45s`, `7m`, `3h`, `2d`: the largest unit that fits; `-` for none."""
    if seconds is None:
        return "-"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(max(seconds, 0))}s"


def size(count: int) -> str:
    """`168`, `3.2K`, `1.1M`, `47G`: bytes in powers of 1024."""
    if count < 1024:
        return str(count)
    value = float(count)
    for unit in "KMGTP":
        value /= 1024
        if value < 999.5 or unit == "P":
            break
    return f"{value:.1f}{unit}" if value < 9.95 else f"{value:.0f}{unit}"


def moment(text: str | None) -> str:
    """An RFC 3339 time in local time: `14:02:11` today, else with the date."""
    if not text:
        return "-"
    try:
        at = datetime.fromisoformat(text).astimezone()
    except OverflowError:
        return text  # the last day of all, which has no moment in this machine's time
    today = at.date() == datetime.now().astimezone().date()
    return at.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")


# -------------------------------------------------------------------------------------- status


def status(document: Json, width: int = 80) -> list[Text]:
    """The gateway in one line, then one line a tunnel."""
    gateway = document["gateway"]
    head = f"{clean(gateway['name'])}  {gateway['address']}  vpnd {gateway['version']}"
    labels = " ".join(clean(gateway[key]) for key in ("type", "vpc", "region") if gateway.get(key))
    about = f"{labels + '  ' if labels else ''}{gateway['engine']} engine, up {duration(gateway['uptime_s'])}"
    lines = [Text(_cut(f"{head}  {about}", width), style="bold")]
    lines += _standing(gateway, width)
    if not document["tunnels"]:
        return [*lines, Text("no tunnel is configured")]
    rows = [_row(tunnel) for tunnel in document["tunnels"]]
    header = ("", "TUNNEL", "PEER", "STATE", "SAs", "HEALTH", "IN/OUT", "NOTE")
    widths = _fit([header, *rows], width)
    lines.append(Text(_line(header, widths), style="dim"))
    for tunnel, row in zip(document["tunnels"], rows, strict=True):
        line = Text(_line(row, widths))
        start = len(_line(row[:3], widths[:3], whole=True)) + len(GAP)
        line.stylize(STATE_STYLE.get(tunnel["state"], ""), start, start + widths[3])
        if row[0] == "!":
            line.stylize("bold red", 0, 1)
        lines.append(line)
    return lines


def _standing(gateway: Json, width: int) -> list[Text]:
    """A configuration that waits to be confirmed, or files that differ from what runs."""
    lines: list[Text] = []
    if gateway.get("confirm_in_s") is not None:
        text = f"! the configuration goes back in {gateway['confirm_in_s']} s unless you run: vpnctl confirm"
        lines += _indented(text, width, "", "  ")
    if gateway.get("rolled_back") is not None:
        lines += _indented(f"! {clean(gateway['rolled_back']['message'])}; vpnctl diff", width, "", "  ")
    for line in lines:
        line.stylize("bold yellow")
    return lines


def tokens(document: Json) -> list[Text]:
    """One line a token."""
    rows = [(clean(one["name"]), one["role"], moment(one["created"])) for one in document["tokens"]]
    if not rows:
        return [Text("no token is valid")]
    width = max(cell_len(name) for name, _, _ in rows)
    return [Text(f"{set_cell_size(name, width)}  {role:<5}  since {since}") for name, role, since in rows]


def gateway(document: Json) -> list[Text]:
    """Everything about the gateway."""
    rows = [
        ("gateway", f"{clean(document['name'])}  {document['address']}"),
        ("version", f"vpnd {document['version']}, {document['engine']} engine"),
        ("up", duration(document["uptime_s"])),
        *((label, clean(document[label] or "-")) for label in ("type", "vpc", "region")),
        ("labels", "set here or over the API" if document["from_api"] else f"of {clean(document['source'])}"),
    ]
    return [Text(f"{name:<9}{value}") for name, value in rows]


def group(document: Json) -> list[Text]:
    """Which tunnel carries each route of a group, and who has decided that."""
    chosen = document["by_hand"]
    how = f"{clean(chosen)} was chosen by hand" if chosen else "health and priority decide"
    lines = [
        f"{clean(route['route'])} is carried by {clean(route['tunnel'])}" for route in document["routes"]
    ]
    return [Text(line) for line in (*lines, f"{', '.join(map(clean, document['tunnels']))}: {how}")]


def _row(tunnel: Json) -> tuple[str, ...]:
    mappings = tunnel["mappings"]
    up = sum(mapping["state"] == "up" for mapping in mappings)
    traffic = "/".join(size(sum(m[f"bytes_{way}"] for m in mappings)) for way in ("in", "out"))
    ike = tunnel["ike"]
    state = tunnel["state"] if ike is None else f"{tunnel['state']} {duration(ike['age_s'])}"
    return (
        mark_of(tunnel),
        clean(tunnel["name"]),
        clean(tunnel["peer"]["address"] or "any"),
        state,
        f"{up}/{len(mappings)}",
        _health(tunnel["health"]),
        traffic if ike is not None or traffic != "0/0" else "",
        _note(tunnel, mappings),
    )


def mark_of(tunnel: Json) -> str:
    """`*` carries traffic, `o` up and standing by, `!` needs attention, `~` under way, `-` neither."""
    if tunnel["state"] == "unhealthy" or (tunnel["last_error"] and tunnel["state"] in ("down", "connecting")):
        return "!"
    if tunnel["state"] == "up":
        incomplete = any(mapping["state"] != "up" for mapping in tunnel["mappings"])
        wrong = incomplete or tunnel.get("impaired")
        return "!" if wrong else "*" if tunnel["carries_traffic"] else "o"
    return "~" if tunnel["state"] == "connecting" else "-"


def _health(health: Json | None) -> str:
    if health is None:
        return ""
    if not health["sent"]:
        return str(health["state"])
    rtt = health["rtt_ms"]
    loss = health.get("loss_percent")
    percent = loss if loss is not None else 100 * health["lost"] / health["sent"]
    return f"{percent:.0f}%" + (f" {rtt:.3g}ms" if rtt is not None else "")


def _note(tunnel: Json, mappings: Sequence[Json]) -> str:
    if not tunnel.get("enabled", True):
        return "disabled"
    if tunnel["state"] != "up" and tunnel["last_error"]:
        return clean(tunnel["last_error"]["code"])
    if tunnel.get("impaired"):
        return clean(tunnel["impaired"]["code"])
    reasons = [mapping["reason"]["code"] for mapping in mappings if mapping["reason"]]
    if reasons:
        return clean(reasons[0])
    attempt = tunnel.get("attempt")
    if tunnel["state"] == "connecting" and attempt and attempt["since_s"] >= 2:
        return f"{attempt['sent']} sent, {attempt['received']} received"
    rekeys = [m["rekey_in_s"] for m in mappings if m["rekey_in_s"] is not None]
    if tunnel["state"] == "up" and not tunnel["carries_traffic"]:
        return "standby"
    return f"rekey {duration(min(rekeys))}" if rekeys else ""


def _fit(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Column widths that fit; columns without content have 0; names, then addresses, then notes give way.

    In columns of the terminal, of which a wide character takes two.
    """
    columns = list(zip(*rows, strict=True))
    widths = [max(map(cell_len, column)) if any(column[1:]) else 0 for column in columns]
    widths[0] = 1
    excess = sum(w + len(GAP) for w in widths if w) - len(GAP) - width
    for column, least in ((1, MIN_NAME), (2, MIN_PEER), (7, 5)):
        taken = max(0, min(excess, widths[column] - least))
        widths[column] -= taken
        excess -= taken
    return widths


def _line(cells: Sequence[str], widths: Sequence[int], whole: bool = False) -> str:
    """The cells in their columns; `whole`: with the blanks behind the last."""
    fitted = (set_cell_size(_cut(cell, w), w) for cell, w in zip(cells, widths, strict=True) if w)
    line = GAP.join(fitted)
    return line if whole else line.rstrip()


def _cut(text: str, width: int) -> str:
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(width - 1, 0)).rstrip() + "\N{HORIZONTAL ELLIPSIS}"


# ---------------------------------------------------------------------------------------- show


def tunnel(document: Json, width: int = 80) -> list[Text]:
    """Everything about one tunnel."""
    lines = [Text.assemble((clean(document["name"]), "bold"), "  ", _state(document["state"]))]
    lines += _pairs(_configured(document), width)
    for ike in document["ike_sas"] or ([document["ike"]] if document["ike"] else []):
        lines += [Text(""), *_pairs(_ike_sa(ike), width)]
    for mapping in document["mappings"]:
        lines += [Text(""), *_mapping(mapping, width)]
    drops = {key: count for key, count in document["drops"].items() if count}
    text = ", ".join(f"{key} {count}" for key, count in drops.items()) or "none"
    lines += [Text(""), *_pairs([("dropped", text)], width)]
    if document["errors"]:
        lines += [Text(""), Text("last errors")]
        for fault in document["errors"][-5:]:
            text = f"{moment(fault['at'])}  {fault['code']}  {clean(fault['message'])}"
            lines += _indented(text, width, "  ", "            ")
    return lines


def _state(state: str) -> tuple[str, str]:
    return state, STATE_STYLE.get(state, "")


def _configured(document: Json) -> list[tuple[str, str]]:
    peer, health, dpd = document["peer"], document["health"], document["dpd"]
    port = f" port {peer['port']}" if peer["port"] else ""
    vendor = f", {clean(peer['vendor'])}" if peer["vendor"] else ""
    # Which side is behind it is not said; and a peer that forces UDP looks the same.
    nat = ", NAT detected" if peer["nat"] else ""
    way = document["communication"]
    routes = f": {', '.join(document['routes'])}" if document["routes"] else ""
    mtu = f", MTU {document['mtu']}" if document["mtu"] else ""
    carries = ", carries its traffic" if document["carries_traffic"] else ""
    pairs = [
        ("peer", f"{clean(peer['address'] or 'of any address, not there')}{port}{vendor}{nat}"),
        ("identities", f"we are {clean(document['local_id'])}, the peer is {clean(document['remote_id'])}"),
        ("key", f"fingerprint {document['psk_fingerprint']}"),
        ("negotiation", f"{document['negotiation']}, {way}{routes}"),
        (
            "interface",
            f"{clean(document['interface'])}{mtu}{carries}",
        ),
        ("priority", str(document["priority"])),
        ("defined in", clean(document["source"])),
    ]
    if document.get("description"):
        pairs.insert(0, ("description", clean(document["description"])))
    if health is not None:
        rtt = (
            f", rtt {health['rtt_ms']} ms, jitter {health['jitter_ms']} ms"
            if health["rtt_ms"] is not None
            else ""
        )
        lossy = " (too much)" if health.get("lossy") else ""
        counts = f"{health['sent']} sent, {health['lost']} lost{lossy}{rtt}"
        pairs.append(("health", f"{health['state']}, {health['local']} - {health['remote']}, {counts}"))
        pairs += _health_history(document.get("health_history") or [])
    heard = "" if dpd["last_heard_s"] is None else f", last heard {duration(dpd['last_heard_s'])} ago"
    pairs.append(("DPD", ("on" if dpd["enabled"] else "off") + heard))
    if document.get("retry_in_s") is not None:
        pairs.append(("next try", f"in {duration(document['retry_in_s'])}"))
    return pairs


def _health_history(minutes: Sequence[Json]) -> list[tuple[str, str]]:
    """The last hour: a sum, and one character a minute: `.` nothing lost, 1 to 9 tenths lost, `#` all."""
    sent, lost = (sum(minute[key] for minute in minutes) for key in ("sent", "lost"))
    if not sent:
        return []
    trips = [minute["rtt_ms"] for minute in minutes if minute["rtt_ms"] is not None]
    rtt = f", rtt {min(trips):.3g} to {max(trips):.3g} ms" if trips else ""
    marks = "".join(_loss_mark(minute["lost"], minute["sent"]) for minute in minutes)
    return [("last hour", f"{100 * lost / sent:.1f} % lost{rtt}"), ("", marks)]


def _loss_mark(lost: int, sent: int) -> str:
    if not lost:
        return "."
    return "#" if lost == sent else str(min(9, max(1, round(10 * lost / sent))))


def _ike_sa(ike: Json) -> list[tuple[str, str]]:
    suite = "/".join(str(w) for w in (ike["encryption"], ike["integrity"]) if w)
    group = f", DH group {ike['dh_group']}" if ike["dh_group"] else ""
    mode = f" {ike['mode']} mode" if ike["mode"] else ""
    rekey = f"rekey in {duration(ike['rekey_in_s'])}, " if ike["rekey_in_s"] is not None else ""
    return [
        ("IKE SA", f"{ike['version']}{mode}, {suite}{group}"),
        ("", f"{ike['spi_i']} - {ike['spi_r']}"),
        ("", f"{duration(ike['age_s'])} old, {rekey}ends in {duration(ike['expires_in_s'])}"),
    ]


def side(mapping: Mapping[str, Any], end: str) -> str:
    """`10.1.0.0/24[tcp/443]`: one side of a mapping, with what its rule narrows it to."""
    protocol, port = mapping.get("protocol"), mapping.get(f"{end}_port")
    narrowed = "/".join(part for part in (protocol, port) if part)
    return f"{mapping[end]}[{narrowed}]" if narrowed else str(mapping[end])


def _mapping(mapping: Json, width: int) -> list[Text]:
    head = Text.assemble(f"{side(mapping, 'local')} - {side(mapping, 'remote')}  ", _state(mapping["state"]))
    pairs: list[tuple[str, str]] = []
    if mapping["reason"]:
        pairs.append(("why", f"{mapping['reason']['code']}  {clean(mapping['reason']['message'])}"))
    if mapping["spi_in"]:
        suite = "/".join(str(w) for w in (mapping["encryption"], mapping["integrity"]) if w)
        pfs = f", PFS group {mapping['pfs']}" if mapping["pfs"] else ""
        way = "in UDP" if mapping["encapsulation"] == "udp" else "as IP protocol 50"
        rekey = f"rekey in {duration(mapping['rekey_in_s'])}, " if mapping["rekey_in_s"] is not None else ""
        pairs += [
            ("ESP SAs", f"{suite}{pfs}, {way}, in {mapping['spi_in']}, out {mapping['spi_out']}"),
            ("", f"{duration(mapping['age_s'])} old, {rekey}ends in {duration(mapping['expires_in_s'])}"),
        ]
        for way, word in (("in", "received"), ("out", "sent")):
            packets, count = mapping[f"packets_{way}"], mapping[f"bytes_{way}"]
            pairs.append((word, f"{packets} packets, {size(count)}B"))
    return [head, *_pairs(pairs, width)]


def _pairs(pairs: Iterable[tuple[str, str]], width: int) -> list[Text]:
    """`  key          value`, the value wrapped under itself."""
    lines: list[Text] = []
    for key, value in pairs:
        lines += _indented(value, width, f"  {key:<12} ", " " * 15)
    return lines


def _indented(text: str, width: int, first: str, rest: str) -> list[Text]:
    wrapped = textwrap.wrap(
        text, max(width, 40), initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    )
    return [Text(line) for line in wrapped or [first.rstrip()]]


# --------------------------------------------------------------------------------- why, problems


def why(document: Json, width: int = 80) -> list[Text]:
    """What happened, what the peer said, what we have, what else it may be, what to change, what to try."""
    name, error, explanation = clean(document["tunnel"]), document["error"], document["explanation"]
    state = document["state"]
    # What was kept is of a daemon that does not run any more.
    present, perfect = ("was", "had") if document.get("kept_at") else ("is", "has")
    if error is None or explanation is None:
        how = f" (vpnctl up {name})" if state == "down" and present == "is" else ""
        return [*_attempt(document, width), Text(f"{name} {present} {state}; nothing {perfect} failed{how}")]
    head = textwrap.wrap(f"{explanation['code']}  {clean(explanation['what'])}", width)
    lines = [Text(line) for line in head]
    stands = document.get("standing", True)
    lines[0].stylize("bold red" if stands else "dim", 0, len(explanation["code"]))
    if not stands:
        over = f"{name} {present} {state}, and nothing {present} wrong that is known; the last failure, which"
        over += " is over:"
        lines = [*_indented(over, width, "", "  "), *lines]
    lines = [*_attempt(document, width), *lines]
    count = document["tries"] or 0
    tries = f", {count} {'try' if count == 1 else 'tries'} since {moment(document['since'])}" if count else ""
    so_far = "so far, of the attempt that began at " if document.get("so_far") else ""
    pairs = [("when", f"{so_far}{moment(error['at'])}{tries}; the tunnel {present} {state}")]
    if document["mapping"]:
        pairs.append(("mapping", clean(document["mapping"])))
    for key, field in (("peer", "peer_said"), ("here", "we_have")):
        if explanation[field]:
            pairs.append((key, clean(explanation[field])))
    pairs += [("" if i else "or else", clean(text)) for i, text in enumerate(explanation["also_possible"])]
    if explanation["change"]:
        pairs.append(("change", clean(explanation["change"])))
    pairs += [("" if i else "where", _where(one)) for i, one in enumerate(explanation.get("where") or [])]
    pairs += [("" if i else "try", clean(text)) for i, text in enumerate(explanation["try"])]
    return [*lines, *_pairs(pairs, width)]


def _attempt(document: Json, width: int) -> list[Text]:
    """`branch-a is connecting: 4 sent, 0 received in 8 s on UDP 500`, while an attempt is under way."""
    attempt = document.get("attempt")
    if not attempt:
        return []
    counts = f"{attempt['sent']} sent, {attempt['received']} received in {attempt['since_s']} s"
    where = f"to {clean(attempt['peer'])} on UDP {attempt['port']}"
    present = "was" if document.get("kept_at") else "is"
    return _indented(f"{clean(document['tunnel'])} {present} connecting: {counts} {where}", width, "", "  ")


def _where(one: Json) -> str:
    """`/etc/vpnd/vpnd.toml:14: ike.dh_group = 14`; of a tunnel of the API the key alone."""
    value = one["value"]
    if one["key"] == "customer_gateway" and isinstance(value, dict):
        text = f"address = {jsonlib.dumps(value['address'])} of {value['name']}"
    elif one["key"].endswith("pre_shared_key"):
        text = f"{one['key']}: fingerprint {value}"
    else:
        text = f"{one['key']} = {jsonlib.dumps(value, ensure_ascii=False)}"
    if one["place"] is None:
        return clean(f"{text}  (made over the API: vpnctl add, or PUT)")
    return clean(f"{one['place']}: {text}" + ("" if one["written"] else "  (not written: the default)"))


def error(body: Json) -> list[Text]:
    """A refusal: code and message, the problems of the configuration, what to change; nothing twice."""
    found = body.get("problems") or []
    head = Text.assemble((str(body.get("code") or "error"), "bold red"), "  ", clean(body.get("message", "")))
    repeated = any(problem["message"] in str(body.get("message", "")) for problem in found)
    lines = [] if repeated else [head]
    lines += problems(found)
    if repeated:
        errors = sum(problem["severity"] == "error" for problem in found)
        lines.append(Text(f"{errors} error{'s' if errors > 1 else ''}: nothing was changed"))
    if body.get("hint") and body["hint"] not in [problem["hint"] for problem in found]:
        lines.append(Text(f"  {clean(body['hint'])}"))
    return lines


def up_all(document: Json) -> list[Text]:
    """How many are up, and what is to be done about each that is not."""
    lines = [Text(f"{document['up']} up, {document['failed']} failed")]
    for entry in document["tunnels"]:
        if entry["error"] is not None:
            head, *hints = error(entry["error"])
            lines += [Text.assemble(f"{clean(entry['tunnel'])}: ", head), *hints]
    return lines


def problems(found: Iterable[Json]) -> list[Text]:
    """`FILE:LINE  CODE  MESSAGE`, and below it what to change."""
    lines: list[Text] = []
    for problem in found:
        place = problem["file"] if problem["line"] is None else f"{problem['file']}:{problem['line']}"
        style = "red" if problem["severity"] == "error" else "yellow"
        lines.append(
            Text.assemble(f"{clean(place)}  ", (problem["code"], style), f"  {clean(problem['message'])}")
        )
        if problem["hint"]:
            lines.append(Text(f"    {clean(problem['hint'])}"))
    return lines


# -------------------------------------------------------------------------------------- events


def event(document: Json) -> Text:
    """One event on one line, the tunnel's name before what happened."""
    name = f"{clean(document['tunnel'])}  " if document["tunnel"] else ""
    code = f"  {document['code']}" if document["code"] else ""
    return Text(f"{moment(document['at'])}  {name}{document['event']}{code}  {clean(document['text'])}")


def keys(document: Json) -> list[Text]:
    """One line a tunnel: its keys, what each end uses, and since when."""
    rows = [("TUNNEL", "CURRENT", "NEXT", "ENDS", "OURS", "THEIRS", "SINCE")]
    for one in document["keys"]:
        ours, theirs = (one[end]["fingerprint"] if one[end] else "-" for end in ("ours", "theirs"))
        since = moment(one["theirs"]["since"]) if one["theirs"] else "-"
        ends = moment(one["retire_after"]) if one["retire_after"] else "-"
        rows.append((clean(one["tunnel"]), one["current"], one["next"] or "-", ends, ours, theirs, since))
    widths = [max(cell_len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        Text("  ".join(set_cell_size(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip())
        for row in rows
    ]


def settings(document: Json, width: int = 80) -> list[Text]:
    """One line a value: its key as TOML has it, the value, and behind `#` where it comes from."""
    shown = [(f"{one['key']} = {_toml(one)}", _origin(one)) for one in document["settings"]]
    widest = max((cell_len(text) for text, _ in shown if cell_len(text) <= width // 2), default=0)
    return [
        Text.assemble(set_cell_size(text, max(widest, cell_len(text))), (f"  # {origin}", "dim"))
        for text, origin in shown
    ]


def _toml(setting: Json) -> str:
    if setting["key"].endswith("pre_shared_key"):
        return f"fingerprint {setting['value'] or 'unknown'}"
    return clean("none" if setting["value"] is None else jsonlib.dumps(setting["value"], ensure_ascii=False))


def _origin(setting: Json) -> str:
    place = clean(setting["place"] or "")
    if setting["origin"] == "file":
        return place
    if setting["origin"] == "derived":
        return f"from {place}" if place else "made by vpnd"
    return f"{setting['origin']}, {place}" if place else str(setting["origin"])


def plan(document: Json, width: int = 80) -> list[Text]:
    """A line a tunnel: what becomes of it, the class and the cost; below it what changes."""
    lines = problems(document["problems"])
    if document["gateway"]:
        lines += [Text("gateway", style="bold"), *_changes(document["gateway"], width, "live")]
    for one in document["tunnels"]:
        lines += _planned(one, width)
    changed, untouched = len(document["tunnels"]), len(document["unchanged"])
    counts = f"{_tunnels(changed)} to change, {untouched} not touched"
    return [*lines, Text(counts if changed or document["gateway"] else f"nothing changes, {counts}")]


def _planned(one: Json, width: int) -> list[Text]:
    word = f", {one['class']}" if one["change"] == "changed" else ""
    head = Text.assemble((clean(one["tunnel"]), "bold"), f"  {one['change']}{word}")
    if one["class"] == "break" and one["change"] != "added":
        head.stylize("red", len(clean(one["tunnel"])))
    return [head, *_indented(f"costs {clean(one['cost'])}", width, "  ", "  "), *_changes(one["keys"], width)]


def _changes(keys: Iterable[Json], width: int, usual: str | None = None) -> list[Text]:
    """A line a key; with `usual` each has its class, unless it is that."""
    lines: list[Text] = []
    for one in keys:
        word = f", {one['class']}" if usual is not None and one["class"] != usual else ""
        text = f"{clean(one['key'])}: {_value(one, 'before')} -> {_value(one, 'after')}{word}"
        lines += _indented(text, width, "    ", "      ")
    return lines


def _value(change: Json, when: str) -> str:
    return _toml({"key": change["key"], "value": change[when]})


def _tunnels(number: int) -> str:
    return f"{number} {'tunnel' if number == 1 else 'tunnels'}"


def diff(document: Json, width: int = 80) -> list[Text]:
    """What runs behind `-`, what would be behind `+`."""
    lines = problems(document["problems"])
    if document["gateway"]:
        lines += [Text("gateway", style="bold"), *_minus_plus(document["gateway"])]
    for one in document["tunnels"]:
        sign, style = {"added": ("+ ", "green"), "removed": ("- ", "red")}.get(one["change"], ("", "bold"))
        lines += [Text(f"{sign}tunnel {clean(one['tunnel'])}", style=style), *_minus_plus(one["keys"])]
    return lines or [Text("no difference")]


def _minus_plus(keys: Iterable[Json]) -> list[Text]:
    return [
        Text(f"  {sign} {clean(one['key'])} = {_value(one, when)}", style=style)
        for one in keys
        for sign, when, style in (("-", "before", "red"), ("+", "after", "green"))
    ]


def applied(document: Json, width: int = 80) -> list[Text]:
    """What was changed, and until when it has to be confirmed."""
    *lines, _ = plan(document, width)
    lines.append(
        Text(f"{_tunnels(len(document['tunnels']))} changed, {len(document['unchanged'])} not touched")
    )
    seconds = document["confirm_in_s"]
    if seconds is not None:
        text = f"the confirmed configuration comes back in {seconds:g} s, unless you run: vpnctl confirm"
        lines.append(Text(text, style="bold"))
    return lines


def configurations(document: Json) -> list[Text]:
    """One line a configuration, the one that runs first."""
    lines = []
    for one in document["configurations"]:
        words = [word for word in ("running", "confirmed") if one[word]]
        note = f"  ({', '.join(words)})" if words else ""
        lines.append(Text(f"{one['back']:>3}  {moment(one['at']):<19}  {clean(one['what'])}{note}"))
    return lines or [Text("none is kept yet")]


def reload(document: Json) -> list[Text]:
    """What a reload did to which tunnels."""
    counts = [(word, document[word]) for word in ("added", "changed", "removed") if document[word]]
    lines = [Text(f"{word}: {', '.join(map(clean, names))}") for word, names in counts]
    untouched = len(document["unchanged"])
    lines.append(Text(f"{untouched} {'tunnel' if untouched == 1 else 'tunnels'} not touched"))
    return [*problems(document["problems"]), *lines]
