"""What is generated from the commands and the schema has every one of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer import Typer
from typer.core import TyperGroup
from typer.main import get_command

from vpnd.config import schema
from vpnd.control import cli
from vpnd.daemon import main as daemon

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The generated files."""
    place = tmp_path_factory.mktemp("reference")
    subprocess.run([sys.executable, "contrib/reference.py", str(place)], check=True, cwd=ROOT)
    return place


@pytest.mark.parametrize(("program", "app"), [("vpnd", daemon.app), ("vpnctl", cli.app)])
def test_the_page_of_a_program_has_each_command_and_option(program: str, app: Typer, made: Path) -> None:
    page = (made / "man" / f"{program}.8.md").read_text()
    command = get_command(app)
    assert isinstance(command, TyperGroup)
    for name, sub in command.commands.items():
        assert f"## {name}" in page
        for parameter in sub.params:
            for flag in parameter.opts if parameter.param_type_name == "option" else ():
                assert f"**{flag}**" in page


def test_the_page_of_the_configuration_has_each_key(made: Path) -> None:
    page = (made / "man" / "vpnd.toml.5.md").read_text()
    tables = [one for one in vars(schema).values() if isinstance(one, type) and issubclass(one, schema.Table)]
    keys = {key: field for table in tables for key, field in table.model_fields.items()}
    for key, field in keys.items():
        kind = field.annotation
        if key in ("spd", "gateway", "customer_gateways", "tunnels") or (
            isinstance(kind, type) and issubclass(kind, schema.Table)
        ):
            assert f".{key}]" in page or f"[{key}" in page
        else:
            assert f"**{key}**" in page


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("vpnctl st", {"status"}),
        ("vpnctl psk ", {"generate", "fingerprint"}),
        ("vpnd ch", {"check"}),
        ("vpnctl up nobody-answers", set()),
    ],
)
def test_a_shell_completes_the_commands(words: str, offered: set[str], made: Path) -> None:
    program = words.split()[0]
    script = (made / "share/bash-completion/completions" / program).read_text()
    assert f"_{program.upper()}_COMPLETE=complete_bash" in script
    environment = {
        **os.environ,
        f"_{program.upper()}_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    done = subprocess.run(
        [str(PROGRAMS / program)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert offered <= set(done.stdout.split())
    assert offered or not done.stdout.split()


@pytest.mark.parametrize("program", ["vpnd", "vpnctl"])
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_read_its_completion(shell: str, program: str, made: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} on this machine")
    (script,) = made.glob(f"share/{shell}*/*/*{program}*")
    subprocess.run([shell, "-n", str(script)], check=True, timeout=60)


def test_zsh_completes_at_the_first_use(made: Path, tmp_path: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("no zsh on this machine")
    (tmp_path / "vpnctl").write_text("#!/bin/sh\necho \"_arguments '*: :((status:x))'; : completed\"\n")
    (tmp_path / "vpnctl").chmod(0o755)
    program = f"""
        path=({tmp_path} $path) fpath=({made / "share/zsh/vendor-completions"} $fpath)
        compdef() {{ }}
        _arguments() {{ print completed }}
        autoload -Uz _vpnctl
        words=(vpnctl st) CURRENT=2
        _vpnctl
    """
    done = subprocess.run(
        ["zsh", "-f", "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "completed\n", done.stderr


def test_fish_completes(made: Path, tmp_path: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("no fish on this machine")
    script = made / "share/fish/vendor_completions.d/vpnctl.fish"
    program = f"set PATH {PROGRAMS} $PATH; source {script}; complete -C 'vpnctl psk '"
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run(
        ["fish", "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert {line.split("\t")[0] for line in done.stdout.splitlines()} >= {"generate", "fingerprint"}
