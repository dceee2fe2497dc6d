"""Man pages and shell completion, generated from the commands and the schema.

`python contrib/reference.py DIRECTORY` writes vpnd.8.md, vpnctl.8.md and vpnd.toml.5.md, which go-md2man
turns into man pages, and the completion of both programs for bash, zsh and fish.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from typer.completion import get_completion_script
from typer.main import get_command

from vpnd import __version__
from vpnd.config import schema
from vpnd.config.values import UNIT
from vpnd.control import cli
from vpnd.daemon import main as daemon

SHELLS = {"bash": "bash-completion/completions/{0}", "zsh": "zsh/vendor-completions/_{0}",
          "fish": "fish/vendor_completions.d/{0}.fish"}  # fmt: skip
"""Where Debian looks for the completion of a program, below /usr/share."""

FIRST_USE = {"zsh": '[[ $funcstack[1] != _{0} ]] || _{0}_completion "$@"\n'}
"""zsh reads the file as the function at its first use, which has to complete as well."""

TABLES: tuple[tuple[str, type[BaseModel]], ...] = (
    ("gateway", schema.GatewayTable),
    ("metrics", schema.MetricsTable),
    ("api", schema.ApiTable),
    ("customer_gateways.NAME", schema.CustomerGatewayTable),
    ("tunnels.NAME", schema.TunnelTable),
    ("[tunnels.NAME.spd]", schema.SpdTable),
    ("tunnels.NAME.ike", schema.IkeTable),
    ("tunnels.NAME.ipsec", schema.IpsecTable),
    ("tunnels.NAME.dpd", schema.DpdTable),
    ("tunnels.NAME.health_check", schema.HealthCheckTable),
    ("tunnels.NAME.sm_numbers", schema.SmNumbersTable),
)
"""Every table of the file by its heading, in the order of the page."""


def command_page(program: str, app: Any, intro: str, see_also: str) -> str:
    """The man page of a program, in section 8, as Markdown."""
    command = get_command(app)
    lines = [
        f'{program} 8 "{program} {__version__}" "System administration"',
        "=" * 60,
        "",
        "# NAME",
        f"{program} - {intro}",
        "",
        "# SYNOPSIS",
        f"**{program}** [*OPTIONS*] *COMMAND* [*ARGUMENTS*]",
        "",
        "# DESCRIPTION",
        plain(command.help or ""),
        "",
        "# OPTIONS",
        *_options(command),
        "",
        "# COMMANDS",
    ]
    for path, sub in commands(command):
        lines += [f"## {usage(path, sub)}", plain(sub.help or ""), "", *_options(sub), ""]
    return "\n".join(
        [*lines, "# EXIT STATUS AND FILES", plain(command.epilog or ""), "", "# SEE ALSO", see_also, ""]
    )


def commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Each command of a program with its path, those of groups included."""
    for name, command in group.commands.items():
        path = f"{before} {name}".strip()
        if getattr(command, "commands", None):
            yield from commands(command, path)
        elif not command.hidden:
            yield path, command


def usage(path: str, command: Any) -> str:
    """`up NAME [OPTIONS]`."""
    arguments = [_argument(p) for p in command.params if p.param_type_name == "argument"]
    return " ".join([path, *arguments])


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name.upper()).strip("[]{}")
    return name if parameter.required else f"[{name}]"


def _options(command: Any) -> Iterator[str]:
    for parameter in command.params:
        if parameter.param_type_name != "option" or parameter.hidden:
            continue
        flags = ", ".join(f"**{flag}**" for flag in [*parameter.opts, *parameter.secondary_opts])
        value = "" if parameter.is_flag else f" *{parameter.metavar or parameter.name.upper()}*"
        yield f"{flags}{value}"
        default = parameter.default
        shown = f" Default: {default}." if not parameter.is_flag and default not in (None, ()) else ""
        yield f":   {parameter.help or ''}{shown}"
        yield ""


def plain(text: str) -> str:
    """A docstring's text without its indentation."""
    return inspect.cleandoc(text).strip()


def configuration_page() -> str:
    """vpnd.toml(5) as Markdown."""
    lines = [
        f'vpnd.toml 5 "vpnd {__version__}" "File formats"',
        "=" * 60,
        "",
        "# NAME",
        "vpnd.toml - the configuration of vpnd",
        "",
        "# DESCRIPTION",
        "*/etc/vpnd/vpnd.toml* and the files of */etc/vpnd/tunnels.d/* hold the gateway, its peers and its"
        " tunnels in TOML. **vpnd check** names every problem with its line. Unknown keys are errors. A file"
        " that holds a pre-shared key as text must be readable by its owner only.",
        "",
    ]
    for heading, table in TABLES:
        lines += [f"# TABLE [{heading}]", plain(table.__doc__ or "").replace("`", "**"), ""]
        shape = table.model_json_schema()
        for key, field in shape["properties"].items():
            if "$ref" in field or "$ref" in str(field.get("items", "")):
                continue  # a table of its own, with a heading of its own
            lines += [
                f"**{key}**",
                f":   {describe(field, key in table.model_json_schema().get('required', ()))}",
                "",
            ]
    return "\n".join([*lines, "# SEE ALSO", "**vpnd**(8), **vpnctl**(8)", ""])


def describe(field: dict[str, Any], required: bool) -> str:
    """A key's meaning, its values and its default in a sentence or two."""
    parts = [str(field["description"])] if "description" in field else []
    if (values := values_of(field)) is not None:
        unit = f" {field[UNIT]}" if UNIT in field else ""
        parts.append(f"Values: {values}{unit}.")
    if required:
        parts.append("Required.")
    elif field.get("default") not in (None, [], ""):
        default = field["default"]
        shown = ", ".join(map(str, default)) if isinstance(default, list) else str(default)
        parts.append(f"Default: {shown.lower() if isinstance(default, bool) else shown}.")
    return " ".join(parts)


def values_of(field: dict[str, Any]) -> str | None:
    """The words or the range of a key, None where it is free text."""
    for part in (field, field.get("items", {}), *field.get("anyOf", ())):
        if "enum" in part:
            return ", ".join(map(str, part["enum"]))
        if part.get("type") == "boolean":
            return "true, false"
        if "minimum" in part or "maximum" in part:
            return f"{part.get('minimum', '')} to {part.get('maximum', '')}"
        if "ge" in part:  # pydantic, beside a validator that sees the value first
            return f"{part['ge']} to {part['le']}"
        if isinstance(part.get("items"), dict) and "enum" in part["items"]:
            return ", ".join(map(str, part["items"]["enum"]))
    return None


def main() -> None:
    """Write everything below the directory that the command line names."""
    place = Path(sys.argv[1])
    man = place / "man"
    man.mkdir(parents=True, exist_ok=True)
    pages = {
        "vpnd.8.md": command_page(
            "vpnd", daemon.app, "IPsec tunnel daemon", "**vpnctl**(8), **vpnd.toml**(5)"
        ),
        "vpnctl.8.md": command_page(
            "vpnctl", cli.app, "see and steer IPsec tunnels", "**vpnd**(8), **vpnd.toml**(5)"
        ),
        "vpnd.toml.5.md": configuration_page(),
    }
    for name, text in pages.items():
        (man / name).write_text(text)
    for program in ("vpnd", "vpnctl"):
        for shell, pattern in SHELLS.items():
            path = place / "share" / pattern.format(program)
            path.parent.mkdir(parents=True, exist_ok=True)
            variable = f"_{program.upper()}_COMPLETE"
            script = get_completion_script(prog_name=program, complete_var=variable, shell=shell)
            path.write_text(f"{script}\n{FIRST_USE.get(shell, '').format(program)}")


if __name__ == "__main__":
    main()
