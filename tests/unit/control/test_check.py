"""`vpnd check`: places, codes, hints, the summary, the exit code."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.unit.config.files import GATEWAY, KEY, ROUTES, TUNNEL, write
from vpnd.control.check import check


def checked(path: Path, as_json: bool = False, state: Path | None = None) -> tuple[int, str]:
    out = io.StringIO()
    return check(path, as_json, state, out), out.getvalue()


def test_a_right_configuration(tmp_path: Path) -> None:
    assert checked(write(tmp_path, GATEWAY + TUNNEL + ROUTES)) == (
        0,
        "1 tunnel, 2 customer gateways, mappings 0/200, 0 errors, 0 warnings\n",
    )


def test_a_warning_does_not_fail(tmp_path: Path) -> None:
    code, text = checked(write(tmp_path, GATEWAY + TUNNEL + ROUTES + 'ike.integrity = "md5"\n'))
    assert code == 0
    assert text.endswith("mappings 0/200, 0 errors, 1 warning\n")


def test_every_problem_has_a_place_a_code_and_what_to_change(tmp_path: Path) -> None:
    text = GATEWAY + TUNNEL + 'ike.dh_group = 2\ndpd.timeot = 3\ncommunication = "spd-policy"\n'
    text += '[[tunnels.a.spd]]\nlocal = ["10.0.0.0/24"]\nremote = ["10.1.0.0/24", "10.2.0.0/24"]\n'
    path = write(tmp_path, text)
    code, printed = checked(path)
    assert code == 2
    lines = printed.splitlines()
    assert lines[0].startswith(f"{path}:14  W-WEAK  ike.dh_group DH group 2: ")
    assert lines[2] == f'{path}:15  E-KEY  unknown key "timeot"'
    assert lines[3] == '    did you mean "timeout"?'
    assert lines[-1] == "1 tunnel, 2 customer gateways, mappings 2/200, 1 error, 1 warning"


def test_json_is_all_there_is(tmp_path: Path) -> None:
    path = write(tmp_path, GATEWAY + TUNNEL + "dpd.timeout = 3\n" + ROUTES)
    code, printed = checked(path, as_json=True)
    document = json.loads(printed)
    assert code == 2
    assert (
        document.items()
        >= {"ok": False, "errors": 1, "warnings": 0, "mappings": 0, "max_mappings": 200}.items()
    )
    assert document["problems"] == [
        {
            "file": str(path),
            "line": 14,
            "code": "E-RANGE",
            "severity": "error",
            "message": "dpd.timeout is 3; allowed: 10 to 3600",
            "hint": "set dpd.timeout to a number from 10 to 3600",
            "key": "tunnels.a.dpd.timeout",
        }
    ]


def test_the_tunnels_of_the_api_are_checked_with_it(tmp_path: Path) -> None:
    main = write(tmp_path, GATEWAY + TUNNEL)
    kept = write(tmp_path, f'[tunnels.b]\ncustomer_gateway = "nobody"\n{KEY}\n', "state/tunnels.d/b.toml")
    code, printed = checked(main, state=tmp_path / "state")
    assert code == 2
    assert f"{kept}:2  E-CUSTOMER-GATEWAY" in printed


def test_nothing_shows_a_key(tmp_path: Path) -> None:
    secret = "hunter2-hunter2"
    path = write(
        tmp_path, GATEWAY + f'[tunnels.a]\ncustomer_gateway = "branch"\npre_shared_key = "{secret}"\n'
    )
    for as_json in (False, True):
        assert secret not in checked(path, as_json)[1]


def test_output_that_is_not_utf8_gets_what_it_can_have(tmp_path: Path) -> None:
    path = tmp_path / "vpnd.toml"
    path.write_text('"\u4e3b" = 1\n', encoding="utf-8")
    done = subprocess.run(
        [Path(sys.executable).parent / "vpnd", "check", path],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == b""
    assert b'unknown key "?"' in done.stdout
