"""`vpnctl`: the operator's tool. It asks the daemon over its socket and prints the answer.

Whatever takes long to import is imported where it is used, so that a command starts at once.
"""

from __future__ import annotations

import gc
import json as jsonlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from vpnd import __version__
from vpnd.config.paths import DEFAULT_SOCKET, DEFAULT_STATE
from vpnd.control import commandline as typer
from vpnd.control import completion
from vpnd.control.commandline import Commands
from vpnd.control.session import (
    EXIT_FAILED,
    EXIT_USAGE,
    Session,
    print_lines,
    print_what_fits,
    write,
)
from vpnd.model.text import named

if TYPE_CHECKING:
    from datetime import datetime

    from rich.text import Text

    from vpnd.sdk.transport import AsyncTransport

FEW_COLLECTIONS = 100_000
"""Ours: objects between two collections of garbage."""

HELP = """See and steer the IPsec tunnels of this gateway.

vpnctl asks the daemon vpnd over its Unix socket, /run/vpnd/vpnd.sock unless --socket names another.
--socket and --json may stand before or after the command. With --json the answer is one JSON document on
standard output and nothing else; of events, one object a line.
"""

EPILOG = """Exit codes: 0 done; 1 it did not work, and the reason is printed; 2 usage or configuration;
3 the daemon cannot be reached.

Files: /etc/vpnd/vpnd.toml and /etc/vpnd/tunnels.d/*.toml hold the tunnels; /var/lib/vpnd/tunnels.d holds
those that `vpnctl add` made. `vpnd check` checks a configuration without the daemon."""

app = Commands(
    help=HELP,
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
psk = Commands(help="Make a pre-shared key, compare one, or replace one.", no_args_is_help=True)
app.add_typer(psk, name="psk")
token = Commands(help="Access to the API over TCP, where [api] serves it.", no_args_is_help=True)
app.add_typer(token, name="token")

SocketOption = Annotated[Path | None, typer.Option("--socket", metavar="PATH", help="The daemon's socket.")]
StateOption = Annotated[Path, typer.Option("--state", metavar="DIR", help="The daemon's state directory.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", min=0.1, max=600, metavar="S", help="How long to wait, in seconds.")
]


def _tunnel_argument(metavar: str, text: str) -> Any:
    """An argument for which a shell completes the names of the tunnels."""
    return typer.Argument(metavar=metavar, help=text, autocompletion=completion.tunnel_names)


def _filter_option(flag: str, text: str) -> Any:
    """An option that leaves out what does not match; it may be repeated."""
    return typer.Option(flag, metavar="WORD", help=f"{text}; may be repeated.")


CodesOption = Annotated[list[str] | None, _filter_option("--code", "With this code, such as E-PSK")]
TextOption = Annotated[str | None, typer.Option("--text", metavar="TEXT", help="In which this is found.")]
SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="WHEN", help="Not older than this: 10m, 2h, 1d, or 2026-03-01T14:00:00Z."
    ),
]
LimitOption = Annotated[int | None, typer.Option("--limit", metavar="N", help="At most so many.")]

NAME_HELP = "The tunnel's name, as in the configuration."
NameArgument = Annotated[str, _tunnel_argument("NAME", NAME_HELP)]


def _session(context: typer.Context, socket: Path | None, json: bool) -> Session:
    """The options of the command, else those before it."""
    before = context.find_root().obj or {}
    return Session(socket or before.get("socket") or DEFAULT_SOCKET, json or before.get("json", False))


def _version(asked: bool) -> None:
    if asked:
        print(f"vpnctl {__version__}")
        raise SystemExit(0)


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    context.obj = {"socket": socket, "json": json}


# -------------------------------------------------------------------------------------- looking


@app.command()
def status(
    context: typer.Context,
    state: Annotated[list[str] | None, _filter_option("--state", "In this state, such as down")] = None,
    negotiation: Annotated[list[str] | None, _filter_option("--negotiation", "Such as active")] = None,
    role: Annotated[
        str | None, typer.Option("--role", metavar="WORD", help="Primary or secondary: by its priority.")
    ] = None,
    peer: Annotated[
        str | None, typer.Option("--peer", metavar="ADDRESS", help="With this peer, as status has it.")
    ] = None,
    code: CodesOption = None,
    text: TextOption = None,
    limit: LimitOption = None,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    """One line for each tunnel, or for those that match every option.

    The first column says what a tunnel does:

    - `*` carries its traffic
    - `o` is up, and another tunnel carries the traffic
    - `!` needs attention
    - `~` is connecting
    - `-` is down, or waits

    SAs counts the mappings that are up; HEALTH is loss and round trip of the health check; IN/OUT counts
    the bytes of the present SAs; NOTE is the next rekey, or the code that `vpnctl why` explains.
    """
    session = _session(context, socket, json)
    from vpnd.sdk.transport import with_query

    wanted = {"state": state, "negotiation": negotiation, "role": role, "peer": peer}
    path = with_query("/v1/status", {**wanted, "code": code, "text": text, "limit": limit})
    document = session.get(path)

    def lines(width: int) -> Iterable[Text]:
        # Programs that watch a gateway ask for JSON every few seconds: they need nothing of `rich`.
        from vpnd.control import render

        return render.status(document, width)

    session.show(document, lines)


@app.command()
def show(
    context: typer.Context, name: NameArgument, socket: SocketOption = None, json: JsonOption = False
) -> None:
    """Everything about one tunnel: IKE SA, every mapping, health, counters, next rekey, last errors."""

    def lines(document: dict[str, Any], width: int) -> Iterable[Text]:
        from vpnd.control import render

        return render.tunnel(document, width)

    _look(context, name, (), lines, _session(context, socket, json))


@app.command()
def why(
    context: typer.Context,
    name: Annotated[
        str | None, _tunnel_argument("NAME", "The tunnel; without it the one with trouble.")
    ] = None,
    state: StateOption = DEFAULT_STATE,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    """The failure explained: what happened, what the peer said, what we have, what to change and where.

    Without NAME it is the one tunnel that needs it; of several they are listed. While an attempt is under
    way it says what was sent and what came. A failure that is over is shown as such. Where the daemon does
    not run, root reads what it said last, kept in the state directory.
    """
    from vpnd.control import reasons

    reasons.why(_session(context, socket, json), name, state)


@app.command()
def trace(
    context: typer.Context,
    name: Annotated[str | None, _tunnel_argument("NAME", NAME_HELP)] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new messages, until Ctrl-C.")
    ] = False,
    since: SinceOption = None,
    exchange: Annotated[
        list[str] | None, _filter_option("--exchange", "Of this exchange, such as IKE_AUTH")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", metavar="FILE", help="Write all that support needs into this file."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="With --bundle: do not ask before it is written.")
    ] = False,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    """The decoded ladder of the last 200 IKE messages: -> sent, <- received. No key is in it.

    It goes on over restarts of the daemon. What repeats is there once, with how often; with --json all of it.

    --bundle shows what a file for support holds, then writes it, as a tar.gz that only you read: versions,
    status, events, values without keys, ladders, routes, rules, counters. Without NAME it is of all tunnels.
    """
    session = _session(context, socket, json)
    wanted = {"since": _moment(session, since), "exchange": exchange}
    from vpnd.control import tracing

    if bundle is not None:
        tracing.bundle(session, name, bundle, yes)
    elif name is None:
        hint = "vpnctl trace NAME, or vpnctl trace --bundle FILE"
        session.fail({"code": "E-USAGE", "message": "of which tunnel?", "hint": hint}, EXIT_USAGE)
    else:
        tracing.show(session, name, wanted, follow)


def _moment(session: Session, text: str | None) -> datetime | None:
    """What --since says; a usage error ends the program."""
    if text is None:
        return None
    from vpnd.control import moments

    try:
        return moments.moment_of(text)
    except ValueError:
        error = {
            "code": "E-VALUE",
            "message": f"--since: {named(text)} is not a moment",
            "hint": moments.HINT,
        }
        session.fail(error, EXIT_USAGE)


@app.command()
def top(context: typer.Context, socket: SocketOption = None, json: JsonOption = False) -> None:
    """Every tunnel live, with sparklines of rate, loss and round trip, until q or Ctrl-C.

    The first column is that of `vpnctl status`. Rates are bytes a second. Where there is no terminal, or with
    --json, it prints one second.
    """
    from vpnd.control import top as live

    live.run(_session(context, socket, json))


@app.command()
def nqa(
    context: typer.Context, name: NameArgument, socket: SocketOption = None, json: JsonOption = False
) -> None:
    """The health check's last hour as plots of loss, round trip and jitter, one column a minute."""
    session = _session(context, socket, json)
    from vpnd.sdk.transport import tunnel_path

    document = session.get(tunnel_path(name))
    shown = {"tunnel": name, "health": document["health"], "history": document["health_history"]}

    def lines(width: int) -> Iterable[Text]:
        from vpnd.control import nqa as plots

        return plots.lines(document, width)

    session.show(shown, lines)


@app.command()
def pcap(
    context: typer.Context,
    name: NameArgument,
    file: Annotated[
        str, typer.Option("--write", "-w", metavar="FILE", help="A new file; - for standard output.")
    ],
    inner: Annotated[bool, typer.Option("--inner", help="The packets that go through the tunnel.")] = False,
    outer: Annotated[bool, typer.Option("--outer", help="ESP as it is on the wire.")] = False,
    ike: Annotated[bool, typer.Option("--ike", help="IKE messages, decrypted.")] = False,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, max=600, metavar="S", help="It ends after so many seconds.")
    ] = 60.0,
    megabytes: Annotated[
        int, typer.Option("--megabytes", min=1, max=256, metavar="MB", help="It ends at so many MB.")
    ] = 16,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    """Capture what the tunnel carries, as pcapng for Wireshark, until Ctrl-C or its bounds.

    All three kinds without an option. IKE messages are in clear, in frames that were never sent, so no key is
    in the file. It is for root, and for the group vpnd with capture = "admin" in [gateway]; an event says
    who captures. A new file is made, which only you read: vpnctl pcap NAME -w - | wireshark -k -i -
    """
    from vpnd.control import capturing

    kinds = {"inner": inner, "outer": outer, "ike": ike}
    if not any(kinds.values()):
        kinds = dict.fromkeys(kinds, True)
    wanted = {**kinds, "seconds": seconds, "bytes": megabytes * 1024 * 1024}
    capturing.run(_session(context, socket, json), name, file, wanted)


@app.command()
def doctor(
    context: typer.Context,
    name: Annotated[str | None, _tunnel_argument("NAME", NAME_HELP)] = None,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    """Live checks of a tunnel and of this machine, each with a verdict and the next step.

    Without NAME it looks at the tunnels that have trouble, or else at all. As root it sees more: counters of
    nftables before and after. The exit code is 1 where a check is bad.
    """
    from vpnd.control.doctor import run as doctors

    doctors.run(_session(context, socket, json), name)


def _look(
    context: typer.Context,
    name: str,
    more: tuple[str, ...],
    lines: Callable[[dict[str, Any], int], Iterable[Text]],
    session: Session,
) -> None:
    from vpnd.sdk.transport import tunnel_path

    document = session.get(tunnel_path(name, *more))
    session.show(document, lambda width: lines(document, width))


@app.command()
def events(
    context: typer.Context,
    name: Annotated[str | None, _tunnel_argument("NAME", "Of this tunnel; all without it.")] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new events, until Ctrl-C.")
    ] = False,
    since: SinceOption = None,
    tunnel: Annotated[
        list[str] | None,
        typer.Option(
            "--tunnel",
            metavar="NAME",
            help="Of this tunnel; may be repeated.",
            autocompletion=completion.tunnel_names,
        ),
    ] = None,
    event: Annotated[list[str] | None, _filter_option("--event", "Of this kind, such as tunnel-down")] = None,
    code: CodesOption = None,
    text: TextOption = None,
    limit: LimitOption = None,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    """State changes, the newest last, or those that match every option; with --json one object a line."""
    session = _session(context, socket, json)
    tunnels = [*(tunnel or ()), *([name] if name else ())]
    wanted: dict[str, Any] = {"tunnel": tunnels, "event": event, "code": code, "text": text, "limit": limit}
    wanted["since"] = _moment(session, since)
    from vpnd.control import render
    from vpnd.sdk.transport import tunnel_path

    async def read(client: AsyncTransport) -> None:
        nothing = True
        async for found in client.events(follow, wanted=wanted):
            nothing = False
            if session.json:
                write(jsonlib.dumps(found) + "\n")
            else:
                line = render.event(found)
                print_lines(lambda width, line=line: [line])  # type: ignore[misc] # the loop's own line
        if nothing:
            # There may be events of one that was removed; a name that was never there is a slip.
            for one in tunnels:
                await client.get(tunnel_path(one))
            session.note("no event matches" if any(wanted.values()) else "no event yet")

    try:
        session.ask(read)
    except BrokenPipeError:
        sys.stderr.close()


# --------------------------------------------------------------------------------------- acting


@app.command()
def up(
    context: typer.Context,
    name: Annotated[str | None, _tunnel_argument("NAME", NAME_HELP)] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Every tunnel; each says how it went, and one that failed counts.")
    ] = False,
    timeout: TimeoutOption = 30.0,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    """Negotiate, and wait until the tunnel is up, or with --all every tunnel.

    With --all the exit code is 1 if one of them is not up after its --timeout; the others are brought up
    all the same. A tunnel that was taken down by `down` begins again.
    """
    session = _session(context, socket, json)
    if every is (name is not None):
        hint = "vpnctl up NAME, or vpnctl up --all"
        session.fail({"code": "E-USAGE", "message": "one tunnel, or --all", "hint": hint}, EXIT_USAGE)
    if name is not None:
        _act(name, "up", {"timeout_s": timeout}, timeout, session)
        return
    from vpnd.control import bulk, render

    document = session.ask(lambda client: bulk.up_all(client, timeout, session.note))
    session.show(document, lambda width: render.up_all(document))
    if document["failed"]:
        raise SystemExit(EXIT_FAILED)


@app.command()
def down(
    context: typer.Context, name: NameArgument, socket: SocketOption = None, json: JsonOption = False
) -> None:
    """Close the tunnel with DELETE; it stays down until `up`, or a start of vpnd."""
    _act(name, "down", None, 30.0, _session(context, socket, json))


@app.command()
def disable(
    context: typer.Context, name: NameArgument, socket: SocketOption = None, json: JsonOption = False
) -> None:
    """Close the tunnel with DELETE; it stays down until `enable`, also after a start of vpnd."""
    _act(name, "disable", None, 30.0, _session(context, socket, json))


@app.command()
def enable(
    context: typer.Context, name: NameArgument, socket: SocketOption = None, json: JsonOption = False
) -> None:
    """Take `disable` back: the tunnel begins as its configuration says."""
    _act(name, "enable", None, 30.0, _session(context, socket, json))


@app.command()
def reset(
    context: typer.Context,
    name: NameArgument,
    timeout: TimeoutOption = 30.0,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    """Delete the tunnel's SAs and negotiate again."""
    _act(name, "reset", {"timeout_s": timeout}, timeout, _session(context, socket, json))


@app.command()
def rekey(
    context: typer.Context,
    name: NameArgument,
    ike: Annotated[bool, typer.Option("--ike", help="Only the IKE SA.")] = False,
    child: Annotated[bool, typer.Option("--child", help="Only the ESP SAs.")] = False,
    timeout: TimeoutOption = 30.0,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    """Replace the tunnel's SAs now, without losing a packet; both kinds unless one is named."""
    body = {"ike": ike, "child": child, "timeout_s": timeout}
    _act(name, "rekey", body, timeout, _session(context, socket, json))


@app.command()
def switch(
    context: typer.Context,
    group: Annotated[str, _tunnel_argument("GROUP", "One of its tunnels, or a route.")],
    name: Annotated[
        str | None, _tunnel_argument("NAME", "The tunnel; without it, health and priority decide.")
    ] = None,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    """Move the routes of tunnels that share them to one of these tunnels, and back.

    The choice holds as long as the tunnel is up and healthy. Naming the tunnel of the lowest priority
    number, or none, gives the choice back to health and priority.
    """
    session = _session(context, socket, json)
    body = {"group": group, "tunnel": name}
    document = session.post("/v1/switch", body)
    from vpnd.control import render

    session.show(document, lambda width: render.group(document))


def _act(name: str, action: str, body: dict[str, Any] | None, wait_s: float, session: Session) -> None:
    from vpnd.sdk.transport import tunnel_path

    document = session.post(tunnel_path(name, action), body, wait_s)
    session.show(document, lambda width: _lines(f"{name} is {document['state']}"))


def _lines(*texts: str) -> list[Text]:
    from rich.text import Text

    from vpnd.control.render import clean

    return [Text(clean(text)) for text in texts]


# -------------------------------------------------------------------------------- configuration


@app.command()
def reload(
    context: typer.Context,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would change, as `vpnctl plan`.")
    ] = False,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    """Apply the changed configuration files, all or nothing.

    Tunnels whose configuration did not change are not touched. With an error nothing is changed, every
    problem is printed with its line, and the exit code is 2. What takes longer says how far it is. A
    configuration that waits for `vpnctl confirm` is confirmed by it, as the files hold it now.
    """
    session = _session(context, socket, json)
    from vpnd.control import reloading, render

    if dry_run:
        _plan(session, None, render.plan)
        return
    document = session.ask(lambda client: reloading.reload(client, session.note))

    session.show(document, lambda width: render.reload(document))


BackArgument = Annotated[
    int | None,
    typer.Argument(
        metavar="N", min=1, max=19, help="So many configurations before the one that runs: rollback --list."
    ),
]


def _plan(session: Session, back: int | None, lines: Callable[[dict[str, Any], int], Iterable[Text]]) -> None:
    from vpnd.sdk.calls import PLAN_LIMIT
    from vpnd.sdk.transport import with_query

    document = session.call("GET", with_query("/v1/plan", {"back": back}), wait_s=PLAN_LIMIT)
    session.show(document, lambda width: lines(document, width))


@app.command()
def plan(
    context: typer.Context, back: BackArgument = None, socket: SocketOption = None, json: JsonOption = False
) -> None:
    """What `vpnctl apply` would change, and what that costs; with N, what `vpnctl rollback N` would.

    One line for each tunnel: what becomes of it, the class of the change, and its cost; below it the values
    that change. The classes, the cheapest first:

    - live: applied in place
    - next SA: it holds from the next rekey or authentication on
    - rekey: successors of the ESP SAs are negotiated at once, before their predecessors go
    - new IKE SA: one is negotiated at once, and the old one goes after that
    - interface: the interface is renamed; made again, and everything negotiated again, before Linux 6.2
    - break: DELETE, and everything is negotiated again: packets are lost

    Nothing is changed. With an error in the files every problem is printed, and the exit code is 2.
    """
    from vpnd.control import render

    _plan(_session(context, socket, json), back, render.plan)


@app.command()
def diff(
    context: typer.Context, back: BackArgument = None, socket: SocketOption = None, json: JsonOption = False
) -> None:
    """The values in which the files differ from what runs; with N, those of an older configuration.

    `-` is what runs, `+` what `vpnctl apply`, or `vpnctl rollback N`, would bring; defaults count as they
    are in force. Fingerprints stand for keys.
    """
    from vpnd.control import render

    _plan(_session(context, socket, json), back, render.diff)


@app.command("apply")
def apply_files(
    context: typer.Context,
    confirm: Annotated[
        float | None,
        typer.Option(
            "--confirm", metavar="SECONDS", min=1, max=86400, help="Go back after that, unless confirmed."
        ),
    ] = None,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    """Put the configuration files in force, all or nothing; with --confirm until it is confirmed.

    Without `vpnctl confirm` the configuration that was confirmed last comes back after SECONDS, also where
    the daemon was killed meanwhile, or cannot be reached through the tunnel that was changed. It comes back
    at once where a tunnel that was up is not up again after 30 s, or fails. The files stay as they are; a
    start uses the confirmed configuration as long as they hold what was rolled back, and `vpnctl status`
    says so, until the next apply or reload. It has the keys that it was confirmed with, also where a key file
    holds another one now; a credential is the one that the service has.

    Meanwhile nothing can be changed over the API. Another apply, or a reload, without --confirm confirms.
    """
    session = _session(context, socket, json)
    from vpnd.control import reloading, render

    body = {"confirm_s": confirm}
    document = session.ask(lambda client: reloading.reload(client, session.note, "/v1/apply", body))
    session.show(document, lambda width: render.applied(document, width))


@app.command()
def confirm(context: typer.Context, socket: SocketOption = None, json: JsonOption = False) -> None:
    """What `vpnctl apply --confirm` has put in force stays."""
    session = _session(context, socket, json)
    document = session.post("/v1/confirm")
    session.show(document, lambda width: _lines(f"configuration {document['configuration']} is confirmed"))


@app.command()
def rollback(
    context: typer.Context,
    back: BackArgument = None,
    listed: Annotated[bool, typer.Option("--list", help="Print the configurations that are kept.")] = False,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    """Put an older configuration in force: the confirmed one, or that of N before the one that runs.

    Without N it is the confirmed one while another waits for `vpnctl confirm`, else the one before. It
    counts as confirmed then, and a start uses it as long as the files are not changed. The last 20 are kept
    in the state directory, without keys: each tunnel keeps the key that it has now.
    """
    session = _session(context, socket, json)
    from vpnd.control import reloading, render

    if listed:
        kept = session.get("/v1/configurations")
        session.show(kept, lambda width: render.configurations(kept))
        return
    body = {"back": back}
    document = session.ask(lambda client: reloading.reload(client, session.note, "/v1/rollback", body))
    session.show(document, lambda width: render.applied(document, width))


@app.command()
def gateway(
    context: typer.Context,
    kind: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="What it belongs to: vpc or ccn.")
    ] = None,
    vpc: Annotated[str | None, typer.Option("--vpc", metavar="NAME", help="The VPC, for type vpc.")] = None,
    region: Annotated[
        str | None, typer.Option("--region", metavar="NAME", help="Where the gateway is.")
    ] = None,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    """This gateway; with an option its labels are changed, and the others stay. '' removes one.

    The labels of a configuration file are changed there. No tunnel is touched.
    """
    session = _session(context, socket, json)
    from vpnd.control import render

    given = {"type": kind, "vpc": vpc, "region": region}
    changed = {label: text or None for label, text in given.items() if text is not None}

    async def ask(client: AsyncTransport) -> dict[str, Any]:
        found = await client.get("/v1/gateway")
        if changed:
            await client.put("/v1/gateway", {label: found[label] for label in given} | changed)
            found = await client.get("/v1/gateway")
        return found

    document = session.ask(ask)
    session.show(document, lambda width: render.gateway(document))


@app.command()
def add(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="TOML with [tunnels.NAME], as in vpnd.toml.")],
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    """Create or change the tunnels of a TOML file; the daemon keeps them, the file is not needed any more.

    FILE holds [tunnels.NAME] and, where it is not configured yet, [customer_gateways.NAME]. A key file is
    read now, with the rights of who runs this; the daemon keeps the key in a file of its own that nobody else
    reads. A tunnel that exists keeps its key if FILE has none.
    """
    session = _session(context, socket, json)
    from vpnd.control import addition, render
    from vpnd.sdk.errors import Refused
    from vpnd.sdk.transport import tunnel_path

    try:
        tunnels = addition.read(file)
    except addition.Unusable as error:
        session.fail({"code": error.code, "message": str(error), "hint": error.hint}, EXIT_USAGE)

    async def put(client: AsyncTransport) -> list[dict[str, Any]]:
        changes = []
        for tunnel in tunnels:
            try:
                changes.append(await client.put(tunnel_path(tunnel.name), tunnel.table))
            except Refused as refusal:
                raise Refused(refusal.status, tunnel.located(refusal.error)) from None
        return changes

    changes = session.ask(put)
    document = {"tunnels": changes}

    def lines(width: int) -> Iterable[Text]:
        for change in changes:
            yield from render.problems(change["problems"])
            yield from _lines(f"{change['tunnel']}: {change['change']}")

    session.show(document, lines)


@app.command()
def remove(
    context: typer.Context, name: NameArgument, socket: SocketOption = None, json: JsonOption = False
) -> None:
    """Close and forget a tunnel that `vpnctl add` made, and its key."""
    session = _session(context, socket, json)
    from vpnd.sdk.transport import tunnel_path

    document = session.delete(tunnel_path(name))
    session.show(document, lambda width: _lines(f"{name}: {document['change']}"))


@app.command("config")
def show_config(
    context: typer.Context, name: NameArgument, socket: SocketOption = None, json: JsonOption = False
) -> None:
    """Every value of a tunnel that is in force, and where it comes from.

    That is the file and line where it was written; `profile` or `default` for what was left out; and for
    what is made of another value, such as an identity of an address, the place of that one. A fingerprint
    stands for the key.
    """
    from vpnd.control import render

    _look(context, name, ("settings",), render.settings, _session(context, socket, json))


@app.command()
def export(
    context: typer.Context, name: NameArgument, socket: SocketOption = None, json: JsonOption = False
) -> None:
    """Print a tunnel as TOML, as it was written, all but its key: a file for `vpnctl add`.

    It is for tunnels that `vpnctl add`, the API or the console made; of one in a file it prints that table.
    On a gateway that has the tunnel, `vpnctl add` keeps its key; elsewhere add pre_shared_key to the file.
    """
    session = _session(context, socket, json)
    from vpnd.sdk.transport import tunnel_path

    document = session.get(tunnel_path(name, "export"))
    if session.json:
        session.show(document, lambda width: ())
    else:
        write(document["toml"])


@app.command("peer-config")
def peer_config(
    context: typer.Context,
    name: NameArgument,
    kind: Annotated[
        str,
        typer.Option(
            "--for", metavar="KIND", help="What the peer is, see above.", autocompletion=completion.peer_kinds
        ),
    ],
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    """Print the other side's configuration, complete but for the key.

    KIND is one of:

    - `strongswan`, `libreswan`, `vpnd`: files
    - `cisco-ios`, `cisco-asa`, `fortigate`, `huawei`, `h3c`, `mikrotik`: commands to paste
    - `tencent-cloud`, `aws`, `azure`: commands for the cloud's own program

    A placeholder stands where the key goes, with its fingerprint. Comments say which switches the peer needs
    and why, and what it cannot do: an algorithm that it lacks is left out while there is another, else
    nothing is written and the exit code is 1. Names of interfaces, and the networks behind this gateway, are
    placeholders in capitals: only the operators know them.
    """
    session = _session(context, socket, json)
    from vpnd.sdk.transport import tunnel_path, with_query
    from vpnd.translate.kinds import KINDS

    if kind not in KINDS:
        hint = "one of: " + ", ".join(KINDS)
        session.fail(
            {"code": "E-VALUE", "message": f"no peer of kind {named(kind)}", "hint": hint}, EXIT_USAGE
        )
    path = with_query(tunnel_path(name, "peer-config"), {"kind": kind})
    document = session.get(path)
    if session.json:
        told = {key: document[key] for key in ("configuration", "notes")}
        session.show({"tunnel": name, "for": kind, **told}, lambda width: ())
    else:
        write(document["configuration"])


@app.command()
def simulate(
    context: typer.Context,
    first: Annotated[Path, typer.Argument(metavar="A", help="One gateway's configuration file.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="The other's.")],
    ladder: Annotated[bool, typer.Option("--ladder", help="Print the messages as well.")] = False,
    json: JsonOption = False,
) -> None:
    """Let two configurations negotiate in memory, and print what comes of it.

    A and B are files as `vpnd.toml`, or as `vpnctl import` reads them (swanctl.conf, ipsec.conf). Each end
    that would begin by its configuration does, and the other answers: what is agreed, and every mapping, or
    what each end says of the failure and would have to change. Then every SA is rekeyed once, since PFS that
    differs shows there.

    No packet leaves this machine, no daemon is asked, and it takes no rights but to read the files. A key
    file that is not on this machine is taken to hold the other end's key. The code is the daemon's own, so
    the outcome is the same. Exit code 1 if not everything comes up as configured and can be rekeyed, 2 for a
    file with errors.
    """
    session = _session(context, None, json)
    from vpnd.control import check, simulation

    try:
        outcome, assumed = simulation.simulate(first, second)
    except simulation.Invalid as invalid:
        problems = [check.as_body(problem) for problem in invalid.problems]
        error = {"code": "E-CONFIG", "message": str(invalid), "hint": None, "problems": problems}
        session.fail(error, EXIT_USAGE)
    document = simulation.document(outcome, assumed)
    session.show(document, lambda width: simulation.lines(outcome, assumed, ladder=ladder))
    if not outcome.works:
        raise SystemExit(EXIT_FAILED)


@app.command("import")
def import_command(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="What to read, together.")],
    output: Annotated[
        Path, typer.Option("--output", metavar="DIR", help="Where the new files are written.")
    ] = Path("imported"),
    kind: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help="Of all files; else by their content.")
    ] = None,
    local: Annotated[
        str | None,
        typer.Option("--local", metavar="ADDRESS", help="This machine's address, as left or right has it."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be written, without keys; write nothing.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Make tunnels of another daemon's configuration: new files, and nothing is started.

    FORMAT is one of:

    - `swanctl.conf`: strongSwan, with includes and sections that inherit
    - `ipsec.conf`: strongSwan or libreswan, with includes, `also=` and `conn %default`
    - `ipsec.secrets`: the pre-shared keys for it
    - `tencent-cloud.json`: what DescribeVpnConnections answers, or CreateVpnConnection takes

    Keys and connections may stand in several FILEs: they are read together. DIR/vpnd.toml and a key file for
    each tunnel are written with mode 0600, never over a file that exists. For each line that could not be
    taken over it is said what it means and what to do; the result is checked as `vpnd check` does. The
    daemon is not needed. Exit code 1 if nothing becomes a tunnel, 2 for a file that cannot be read, or a
    result with errors.
    """
    session = _session(context, None, json)
    from vpnd.control import importing

    if kind is not None and kind not in importing.FORMATS:
        hint = "one of: " + ", ".join(importing.FORMATS)
        session.fail({"code": "E-VALUE", "message": f"no format {named(kind)}", "hint": hint}, EXIT_USAGE)
    try:
        imported = importing.import_files(files, output, kind, local, dry_run)
    except importing.Broken as broken:
        session.fail({"code": "E-IMPORT", "message": str(broken), "hint": "nothing was written"}, EXIT_USAGE)
    except importing.Exists as there:
        hint = "name another directory with --output; nothing was written"
        session.fail({"code": "E-EXISTS", "message": f"there is already {there}", "hint": hint}, EXIT_USAGE)
    except OSError as error:
        text = f"{error.filename} cannot be written: {error.strerror}"
        session.fail({"code": "E-FILE", "message": text, "hint": None}, EXIT_FAILED)
    session.show(importing.document(imported), lambda width: importing.lines(imported))
    if not imported.tunnels or not imported.loaded.ok:
        raise SystemExit(EXIT_USAGE if imported.tunnels else EXIT_FAILED)


# ----------------------------------------------------------------------------------------- keys


@psk.command()
def generate(context: typer.Context, socket: SocketOption = None, json: JsonOption = False) -> None:
    """A new 256-bit key, of letters and digits, which every gateway accepts.

    Write it into a file that only root reads, and name that in the configuration:
    (umask 077; vpnctl psk generate > /etc/vpnd/psk/NAME)
    """
    from vpnd.config.secrets import new_key

    session = _session(context, socket, json)
    key = new_key()
    write(jsonlib.dumps({"key": key}) + "\n" if session.json else key + "\n")


@psk.command()
def fingerprint(
    context: typer.Context, name: NameArgument, socket: SocketOption = None, json: JsonOption = False
) -> None:
    """Eight hex digits that stand for a tunnel's key, to compare over the phone with the peer's."""
    session = _session(context, socket, json)
    from vpnd.sdk.transport import tunnel_path

    document = session.get(tunnel_path(name))
    found = {"tunnel": name, "fingerprint": document["psk_fingerprint"]}
    session.show(found, lambda width: _lines(found["fingerprint"]))


@psk.command("status")
def key_status(
    context: typer.Context,
    name: Annotated[str | None, _tunnel_argument("NAME", NAME_HELP)] = None,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    """Which pre-shared key each tunnel has, and which of them each end uses, since when: fingerprints.

    OURS and THEIRS are what the two ends have proved themselves with last.
    """
    session = _session(context, socket, json)
    from vpnd.control import render
    from vpnd.sdk.transport import tunnel_path

    if name is None:
        document = session.get("/v1/keys")
    else:
        one = session.get(tunnel_path(name, "psk"))
        document = {"keys": [one]}
    session.show(document if name is None else document["keys"][0], lambda width: render.keys(document))


@psk.command()
def rotate(
    context: typer.Context,
    name: NameArgument,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="The next key; a new one is made without.")
    ] = None,
    retire_after: Annotated[
        str | None,
        typer.Option("--retire-after", metavar="TIME", help="When the current key ends."),
    ] = None,
    prove: Annotated[bool, typer.Option("--prove", help="Authenticate with the next key now.")] = False,
    finish: Annotated[bool, typer.Option("--finish", help="End the current key.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Forget the next key.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="With --finish: although the peer was not seen with the next key.")
    ] = False,
    timeout: TimeoutOption = 30.0,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    """Replace the pre-shared key of a tunnel without an outage.

    Without an option both keys are accepted from now on: the current one, and a new one, which is printed
    for the other end. Give the other end its next key at any time; --prove shows that it has it; then
    --finish here, and there. For a tunnel in a file it prints the lines to write.
    """
    session = _session(context, socket, json)
    if prove + finish + cancel > 1:
        error = {"code": "E-USAGE", "message": "--prove, --finish and --cancel are steps of their own"}
        session.fail({**error, "hint": "one at a time"}, EXIT_USAGE)
    from vpnd.control import rotation

    step = "prove" if prove else "finish" if finish else "cancel" if cancel else "begin"
    body: dict[str, Any] = {"step": step, "force": force, "timeout_s": timeout}
    made = None
    if step == "begin":
        try:
            text, made = rotation.next_key(key)
            body |= {"key": f"plain:{text}"} | rotation.end_of(retire_after)
        except rotation.Unusable as error:
            session.fail({"code": error.code, "message": str(error), "hint": error.hint}, EXIT_USAGE)
    from vpnd.sdk.transport import tunnel_path

    path = tunnel_path(name, "psk", "rotate")
    document = session.post(path, body, timeout)
    if made is not None and document["done"]:
        document["key"] = made
    session.show(document, lambda width: _lines(*rotation.lines(document)))


# --------------------------------------------------------------------------------------- tokens

TokenNameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="What it is called in lists and events.")
]


@token.command("create")
def create_token(
    context: typer.Context,
    name: TokenNameArgument,
    role: Annotated[
        str,
        typer.Option("--role", metavar="ROLE", help="read: it changes nothing; admin: all is allowed."),
    ] = "read",
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    """Make a token and print it; nothing shows it again."""
    session = _session(context, socket, json)
    body = {"name": name, "role": role}
    document = session.post("/v1/tokens", body)
    session.show(document, lambda width: _lines(document["token"]))


@token.command("list")
def list_tokens(context: typer.Context, socket: SocketOption = None, json: JsonOption = False) -> None:
    """Every token that is valid: its name, its role and since when."""
    session = _session(context, socket, json)
    document = session.get("/v1/tokens")
    from vpnd.control import render

    session.show(document, lambda width: render.tokens(document))


@token.command("revoke")
def revoke_token(
    context: typer.Context, name: TokenNameArgument, socket: SocketOption = None, json: JsonOption = False
) -> None:
    """The token is of no use from now on; what follows events with it ends."""
    session = _session(context, socket, json)
    from vpnd.sdk.transport import token_path

    document = session.delete(token_path(name))
    session.show(document, lambda width: _lines(f"{name}: revoked"))


@app.command("help")
def show_help(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="COMMAND", help="Such as up, or psk rotate.")
    ] = None,
) -> None:
    """The help of a command, or of all."""
    app([*(words or ()), "--help"], prog_name="vpnctl")


def main() -> None:
    """The entry point. What takes long at the start, and is of no use here, is left out."""
    gc.set_threshold(FEW_COLLECTIONS)
    print_what_fits()
    completion.prepare("vpnctl")
    app(prog_name="vpnctl")
