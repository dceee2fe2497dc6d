"""The files: the main one, those beside it, the API's; and files that are broken in any way."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.unit.config.files import GATEWAY, KEY, ROUTES, TUNNEL, load_text, write
from vpnd.config.compile import compile_gateway
from vpnd.config.configuration import Source
from vpnd.config.load import load, load_with, load_without
from vpnd.config.problems import ConfigurationInvalid
from vpnd.model.secret import Secret


def tunnel(name: str, gateway: str = "branch") -> str:
    return f'[tunnels.{name}]\ncustomer_gateway = "{gateway}"\n{KEY}\nike.local_id = "{name}.example"\n'


def test_the_order_is_that_of_the_files(tmp_path: Path) -> None:
    main = write(tmp_path, GATEWAY + tunnel("m"))
    write(tmp_path, tunnel("z"), "tunnels.d/10-first.toml")
    write(tmp_path, tunnel("a"), "tunnels.d/20-second.toml")
    write(tmp_path, tunnel("hidden"), "tunnels.d/.swap.toml")
    write(tmp_path, tunnel("other"), "tunnels.d/readme.txt")
    write(tmp_path, tunnel("b"), "state/tunnels.d/b.toml")
    loaded = load(main, tmp_path / "state")
    assert {problem.code for problem in loaded.problems} == {"W-NO-ROUTES"}
    assert list(loaded.configuration.tunnels) == ["m", "z", "a", "b"]
    assert [t.source.from_api for t in loaded.configuration.tunnels.values()] == [False, False, False, True]
    assert [t.name for t in compile_gateway(loaded).tunnels] == ["m", "z", "a", "b"]


def test_a_tunnel_in_two_files_names_both_places(tmp_path: Path) -> None:
    main = write(tmp_path, GATEWAY + tunnel("a"))
    extra = write(tmp_path, "\n\n" + tunnel("a"), "tunnels.d/a.toml")
    (problem,) = load(main).errors
    assert (problem.code, problem.place) == ("E-DUPLICATE", f"{extra}:3")
    assert f"{main}:{GATEWAY.count(chr(10)) + 1}" in problem.message


def test_a_customer_gateway_and_a_gateway_in_two_files(tmp_path: Path) -> None:
    main = write(tmp_path, GATEWAY)
    extra = write(tmp_path, GATEWAY, "tunnels.d/a.toml")
    problems = load(main).errors
    assert [(p.code, p.file, p.line) for p in problems] == [
        ("E-GATEWAY", str(extra), 1),
        ("E-DUPLICATE", str(extra), 5),
        ("E-DUPLICATE", str(extra), 8),
    ]


def test_a_customer_gateway_in_place_of_its_name(tmp_path: Path) -> None:
    text = GATEWAY + f'[tunnels.a]\ncustomer_gateway = {{ address = "gw.example" }}\n{KEY}\n'
    (compiled,) = compile_gateway(load_text(tmp_path, text)).tunnels
    assert compiled.remote == "gw.example"
    assert compiled.peer.remote_address is None
    assert str(compiled.peer.remote_id) == "gw.example"


def test_one_broken_file_does_not_hide_the_problems_of_another(tmp_path: Path) -> None:
    main = write(tmp_path, GATEWAY + "[tunnels.a\n")
    extra = write(tmp_path, tunnel("b") + "nonsense = 1\n", "tunnels.d/b.toml")
    assert [(p.code, p.place) for p in load(main).errors if p.code != "E-CUSTOMER-GATEWAY"] == [
        ("E-TOML", f"{main}:10"),
        ("E-KEY", f"{extra}:5"),
    ]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (problem,) = load(tmp_path / "none.toml").errors
    assert (problem.code, problem.file, problem.line) == ("E-FILE", str(tmp_path / "none.toml"), None)
    assert "No such file" in problem.message
    assert problem.hint == "name another file, or write one: conf/ has examples"


def test_a_state_directory_that_cannot_be_seen(tmp_path: Path) -> None:
    """As of another user, which root's tests cannot have."""
    problems = load(write(tmp_path, GATEWAY), tmp_path / ("n" * 300)).errors
    assert {(p.code, p.message.partition(": ")[2]) for p in problems} == {("E-FILE", "File name too long")}
    assert {Path(p.file or "").name for p in problems} >= {"gateway.toml", "disabled.toml", "tunnels.d"}


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"\xff\xfe", "E-FILE"),
        (b"a = " + b"[" * 5000, "E-TOML"),
        (b"a = 1\na = 2\n", "E-TOML"),
        (b'a = "', "E-TOML"),
        (b"\x00", "E-TOML"),
    ],
)
def test_what_is_not_toml(tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "vpnd.toml"
    path.write_bytes(content)
    assert [p.code for p in load(path).errors] == [code]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("[tunnels.a]\n", "[tunnels.a] is there twice: join the two"),
        ("[gateway]\n", "[gateway] is there twice: join the two"),
        ("priority = 1\npriority = 2\n", "the key before this place is already there"),
    ],
)
def test_what_is_there_twice(tmp_path: Path, more: str, message: str) -> None:
    (problem,) = load(write(tmp_path, GATEWAY + TUNNEL + more)).errors
    assert (problem.code, problem.message) == ("E-TOML", message)
    assert problem.line == (GATEWAY + TUNNEL + more).count("\n")


def test_a_pipe_among_the_files_does_not_hold_up_the_others(tmp_path: Path) -> None:
    main = write(tmp_path, GATEWAY)
    write(tmp_path, tunnel("b"), "tunnels.d/b.toml")
    os.mkfifo(tmp_path / "tunnels.d" / "c.toml")
    (tmp_path / "tunnels.d" / "d.toml").symlink_to("nowhere")
    (tmp_path / "tunnels.d" / "e.toml").mkdir()
    pipe, link, directory = load(main).errors
    assert pipe.message == directory.message == "the file cannot be read: it is not a regular file"
    assert "No such file" in link.message
    assert "link" in (link.hint or "")
    assert list(load(main).configuration.tunnels) == ["b"]


REQUESTED: dict[str, object] = {
    "customer_gateway": {"address": "198.51.100.9"},
    "pre_shared_key": "file:b.psk",
    "routes": ["10.9.0.0/16"],
}


def requested(state: Path, **changes: object) -> Source:
    """A tunnel that came over the API: no text, and a key that is not on disk yet."""
    return Source(
        "request",
        {"tunnels": {"b": REQUESTED | changes}},
        path=state / "tunnels.d" / "b.toml",
        from_api=True,
        keys={"b": Secret(b"a-key-that-came-over-the-api")},
    )


def test_a_tunnel_is_checked_before_it_is_kept(tmp_path: Path) -> None:
    main = write(tmp_path, GATEWAY + TUNNEL + ROUTES)
    checked = load_with(main, tmp_path, requested(tmp_path))
    assert checked.problems == ()
    assert list(checked.configuration.tunnels) == ["a", "b"]
    secret = checked.configuration.tunnels["b"].secret
    assert secret is not None
    assert secret.reveal() == b"a-key-that-came-over-the-api"
    assert list(load(main, tmp_path).configuration.tunnels) == ["a"]


def test_a_change_takes_the_place_of_its_file(tmp_path: Path) -> None:
    state = tmp_path / "state"
    main = write(tmp_path, GATEWAY)
    old = write(tmp_path, tunnel("b"), "state/tunnels.d/b.toml")
    assert load_with(main, state, requested(state, priority=7)).configuration.tunnels["b"].table.priority == 7
    assert list(load(main, state).configuration.tunnels) == ["b"]
    assert list(load_without(main, state, old).configuration.tunnels) == []


def test_a_problem_of_what_was_never_text_has_a_key_and_no_line(tmp_path: Path) -> None:
    main = write(tmp_path, GATEWAY)
    wrong = requested(tmp_path, routes=["10.9.0.0/16", "127.0.0.0/8"], ike={"lifetime": "1"}, dpd=None)
    assert [(p.place, p.code, p.key) for p in load_with(main, tmp_path, wrong).errors] == [
        ("request", "E-PREFIX", "tunnels.b.routes[1]"),
        ("request", "E-TYPE", "tunnels.b.ike.lifetime"),
        ("request", "E-TYPE", "tunnels.b.dpd"),
    ]


@pytest.mark.parametrize("seconds", [30, 31, 59, 60])
def test_a_usual_dpd_timeout_is_no_problem(tmp_path: Path, seconds: int) -> None:
    loaded = load_text(tmp_path, GATEWAY + TUNNEL + f"dpd.timeout = {seconds}\n")
    assert "W-DPD-TIMEOUT" not in [problem.code for problem in loaded.problems]


def test_errors_are_not_compiled(tmp_path: Path) -> None:
    loaded = load_text(tmp_path, GATEWAY + TUNNEL + "dpd.timeout = 5\n")
    with pytest.raises(ConfigurationInvalid, match="E-RANGE"):
        compile_gateway(loaded)


def test_broken_files_never_raise_and_never_pass_by_half(tmp_path: Path) -> None:
    """Whatever a file is turned into, there are problems with a place, or a whole policy."""
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    text = GATEWAY + TUNNEL + ROUTES + "health_check.enabled = true\n" + tunnel("b")
    text += (
        'communication = "spd-policy"\n[[tunnels.b.spd]]\nlocal = ["10.0.0.0/24"]\nremote = ["10.9.0.0/24"]\n'
    )
    for _ in range(300):
        mutated = mutate(text, rng)
        loaded = load_text(tmp_path, mutated)
        for problem in loaded.problems:
            assert problem.code[:2] in ("E-", "W-"), mutated
            assert problem.line is None or 1 <= problem.line <= mutated.count("\n") + 1, mutated
        if loaded.ok:
            assert len(compile_gateway(loaded).tunnels) == len(loaded.configuration.tunnels)


def mutate(text: str, rng: random.Random) -> str:
    """One to three small changes: a character, a line gone, doubled or moved."""
    for _ in range(rng.randint(1, 3)):
        lines = text.split("\n")
        place, at = rng.randrange(len(lines)), rng.randrange(max(1, len(text)))
        match rng.randrange(5):
            case 0:
                text = text[:at] + rng.choice('[]{}"=,.#\n 0aé') + text[at + 1 :]
            case 1:
                text = text[:at] + text[at + 1 :]
            case 2:
                text = "\n".join(lines[:place] + lines[place + 1 :])
            case 3:
                text = "\n".join([*lines[: place + 1], *lines[place:]])
            case _:
                text = "\n".join([*lines[place:], *lines[:place]])
    return text
