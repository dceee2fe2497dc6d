"""Words of a file, of a client and of a peer in what is said about them: none steers the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpnd.config.configuration import Findings, Source
from vpnd.config.load import check, load
from vpnd.config.problems import quoted
from vpnd.control.check import as_body, lines
from vpnd.control.diagnoses import explain
from vpnd.control.operations import OperationError, UnknownTunnel
from vpnd.model.diagnosis import Code, Diagnosis

STEERS = "\x1b[2J\r\n\x07\x9b\u202e\ud800"
WORDS = st.text(st.sampled_from([*"abc-:/.1", *STEERS]), max_size=12)
NAMES = st.one_of(
    WORDS, st.sampled_from(["branch", "branch\x1b", "ike", "routes", "pre_shared_key", "address"])
)
VALUES = st.recursive(
    st.one_of(
        WORDS, st.sampled_from(["branch", "branc\x1b", "any", "192.0.2.1", "file:\x1b"]), st.booleans()
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)
KNOWN = ("customer_gateway", "pre_shared_key", "routes", "spd", "ike", "ipsec", "interface", "priority")
TUNNELS = st.dictionaries(st.one_of(NAMES, st.sampled_from(KNOWN)), VALUES, max_size=5)
GATEWAYS = st.dictionaries(
    NAMES, st.one_of(VALUES, st.fixed_dictionaries({"address": st.just("192.0.2.2")})), max_size=3
)


@given(
    st.dictionaries(NAMES, TUNNELS, max_size=3), GATEWAYS, st.dictionaries(NAMES, VALUES, max_size=2), WORDS
)
def test_no_problem_steers_the_terminal(
    tunnels: dict[str, Any], gateways: dict[str, Any], others: dict[str, Any], label: str
) -> None:
    tables = {**others, "tunnels": tunnels, "customer_gateways": gateways}
    found = check([Source(label, tables, main=True)], Findings()).problems
    for problem in found:
        texts = [value for value in as_body(problem).values() if isinstance(value, str)]
        assert all(text.isprintable() for text in (*texts, str(problem)))
    assert all(line.isprintable() for line in lines(found))


def test_a_key_that_is_no_text_is_named_by_its_table() -> None:
    (wrong,) = (
        problem
        for problem in check([Source("t", {"gateway": {"\ud800": 1}}, main=True)], Findings()).problems
        if problem.code == "E-KEY"
    )
    assert wrong.message.startswith("gateway: ")


def test_a_value_is_shown_up_to_60_characters() -> None:
    assert quoted("ab-" * 20) == f'"{"ab-" * 20}"'
    assert quoted("ab-" * 20 + "a") == f'"{"ab-" * 19}..."'


@pytest.mark.parametrize("name", ["bran\x1b[2Jch", "bran\nch"])
def test_a_hint_escapes_a_name_that_is_close(tmp_path: Path, name: str) -> None:
    file = tmp_path / "vpnd.toml"
    written = name.replace("\x1b", "\\u001b").replace("\n", "\\n")
    file.write_text(
        '[gateway]\nname = "hq"\naddress = "192.0.2.1"\n'
        f'[customer_gateways."{written}"]\naddress = "192.0.2.2"\n'
        '[tunnels.t]\ncustomer_gateway = "branch"\npre_shared_key = "plain:x"\n'
    )
    hints = [problem.hint or "" for problem in load(file).problems]
    assert any("did you mean" in hint and "ch" in hint for hint in hints)
    assert all(hint.isprintable() for hint in hints)


def test_a_file_whose_name_steers(tmp_path: Path) -> None:
    (tmp_path / "tunnels.d").mkdir()
    (tmp_path / "tunnels.d" / "a\n\x1b.toml").write_text("x = 1")
    (tmp_path / "vpnd.toml").write_text("")
    assert all(line.isprintable() for line in lines(load(tmp_path / "vpnd.toml").problems))


@given(WORDS, WORDS)
def test_no_refusal_steers_the_terminal(name: str, other: str) -> None:
    for refusal in (UnknownTunnel(name, [other]), OperationError("E-X", name, other)):
        assert all(text.isprintable() for text in (refusal.message, refusal.hint or "", str(refusal)))


@pytest.mark.parametrize("code", Code)
def test_no_explanation_steers_the_terminal(code: Code) -> None:
    facts = ("peer", "ours", "theirs", "exchange", "notify", "detail", "sent", "received", "mapping", "what")
    explanation = explain(Diagnosis.of(code, **dict.fromkeys(facts, f"x{STEERS}")))
    texts = [explanation.what, explanation.peer_said, explanation.we_have, explanation.change]
    assert all((text or "").isprintable() for text in (*texts, *explanation.also_possible, *explanation.try_))
