"""What the daemon says, in the other languages: each sentence is known, and none that it does not say."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.console.conftest import Browser
from tests.unit.control.test_diagnoses import FACTS
from vpnd.config.configuration import Findings, Source
from vpnd.config.load import check
from vpnd.config.weak import BETTER
from vpnd.console import words
from vpnd.console.words import MAX_SAID, teller, told
from vpnd.control import products
from vpnd.control.diagnoses import explain
from vpnd.control.explanation import UNKNOWN, About, Facts
from vpnd.control.mismatches import unknown_caller
from vpnd.model.diagnosis import Code, Diagnosis
from vpnd.model.unreachable import Unreachable

OTHERS = [code for code in words.LANGUAGES if code != "en"]
VPND = Path(words.__file__).parents[1]


def patterns(language: str) -> dict[str, str]:
    return tomllib.loads((words.CATALOGUES / f"{language}-said.toml").read_text())


@pytest.mark.parametrize("language", OTHERS)
def test_a_text_has_places_for_the_values_of_its_pattern(language: str) -> None:
    for english, other in patterns(language).items():
        values = [f"<{number}>" for number in range(english.count("{}"))]
        shown = other.format(*values)
        assert "{" not in shown, english
        if "{}" in other:
            assert other.count("{}") == len(values), english


def source() -> str:
    """The code, with texts that stand on several lines joined."""
    return "".join(re.sub(r"""["']\n\s+f?["']""", "", file.read_text()) for file in VPND.rglob("*.py"))


@pytest.mark.parametrize("language", OTHERS)
def test_each_pattern_is_of_words_that_stand_in_the_code(language: str) -> None:
    said = source()
    for english in patterns(language):
        pieces = [piece.split() for piece in re.split(r"\{\}|: |; | \(|\)", english)]
        runs = [" ".join(piece[at : at + 2]) for piece in pieces for at in range(max(1, len(piece) - 1))]
        assert any(run in said for run in runs if run), english


def is_told(language: str, text: str) -> bool:
    """Whether no words of the daemon are left in it, but for commands and the like."""
    other = re.sub('vpnctl psk generate|"[^"]*"', "", told(language, text) or text)
    return re.search(r"(?<![\w-])[a-z]{2,} [a-z]{2,} [a-z]{2,}", other) is None


FULL = FACTS | {
    "detail": "it cannot be decrypted",
    "seconds": "10",
    "count": "2",
    "total": "4",
    "mtu": "1400",
}
FULL |= {"inner": "1300", "mss": "1260", "places": "2, 4", "reason": "E-P2-ENC", "encapsulation": "esp"}
IDENTITY = {"theirs": "b.example (FQDN)", "ours": "a.example (FQDN)"}
CASES: tuple[dict[str, str], ...] = (
    {},
    FULL,
    {"theirs": "14", "ours": "2"},
    {"theirs": "sm4, sm3", "ours": "aes-128, aes-256", "esn": "on"},
    {"theirs": "main", "ours": "aggressive", "notify": "DELETE", "exchange": "main mode"},
    {"notify": "NO_PROPOSAL_CHOSEN", "exchange": "aggressive mode", "whose": "ours"},
    {"notify": "AUTHENTICATION_FAILED", "exchange": "quick mode", "ours": "3f9a-77c1", "esn": "off"},
    {**IDENTITY, "key": "proved"},
    {**IDENTITY, "whose": "ours", "detail": "we said IDi a.example (FQDN), asked for no IDr"},
    {"theirs": "CN=b (DN)", "detail": "we said IDi a.example (FQDN), asked for IDr b.example (FQDN)"},
    {"probed": "alone", "theirs": "aes-128/sha256/dh14", "ours": "aes-128/sha256/dh14, aes-256/sha256/dh14"},
    *({"cause": cause} for cause in ("prohibited", "forbidden_here", "port", "forwarding", "icmp")),
    {"cause": "no_route", "peer": "192.0.2.2", "detail": Unreachable.NO_ROUTE.value},
    {"cause": "into_tunnel", "peer": "192.0.2.2", "ours": "vpn-t", "detail": Unreachable.INTO_TUNNEL.value},
    {"cause": "refused", "detail": "10.2.0.0/16"},
    *({"errno": errno} for errno in ("EADDRINUSE", "EADDRNOTAVAIL", "EMFILE")),
    {"encapsulation": "udp", "detail": "96", "ours": "1500"},
    {"reason": "E-REFUSED", "count": "1", "total": "4", "places": "2"},
)
ALSO = {
    Code.PFS: ({"theirs": "none", "ours": "2"}, {"theirs": "off or another group", "ours": "14, 19"}),
    Code.PSK: (
        {
            "notify": "AUTHENTICATION_FAILED",
            "probed": "yes",
            "detail": "we said IDi a.example (FQDN), asked for no IDr",
        },
    ),
    Code.LOCAL_SOCKET: ({"errno": "EADDRINUSE", "owner": "charon (pid 13)"},),
    Code.UNKNOWN_PEER: (
        {"peer": "198.51.100.7", "port": "500", "theirs": "ikev1", "received": "3", "ours": "b.example"},
        {"peer": "198.51.100.7", "port": "4500", "theirs": "ikev2", "received": "1"},
    ),
    Code.LOCAL_INTERFACE: ({"ours": "vpn-t", "cause": "taken"},),
    Code.P2_PROPOSAL: ({"exchange": "IKE_AUTH", "ours": "aes-128/sha256"},),
    Code.TRAFFIC_SELECTORS: ({"theirs": "10.9.0.0/24 - 10.2.0.0/24"},),
}
VENDORS = [None, *products.PRODUCTS]


@pytest.mark.parametrize("language", OTHERS)
@pytest.mark.parametrize("code", Code)
def test_every_diagnosis_is_known(code: Code, language: str) -> None:
    """All that `why` says: in both versions, and with the words of each product, which stay as they are."""
    for number, facts in enumerate((*CASES, *ALSO.get(code, ()))):
        about = About(("ikev1", "ikev2")[number % 2], VENDORS[number % len(VENDORS)])
        for each in (UNKNOWN, about):
            found = explain(Diagnosis.of(code, **facts), "branch-a", each)
            said = (found.what, found.peer_said, found.we_have, found.change, *found.also_possible)
            for text in filter(None, said):
                assert has_no_english(language, text), (text, told(language, text))
            for text in found.try_:
                assert text.startswith(TYPED) or told(language, text) is not None, text


@pytest.mark.parametrize("language", OTHERS)
@pytest.mark.parametrize("version", ["ikev1", "ikev2", None])
def test_what_may_be_the_peer_is_known(version: str | None, language: str) -> None:
    facts = Facts(
        Diagnosis.of(Code.UNKNOWN_PEER, peer="198.51.100.7", theirs="ikev1"),
        "t",
        About(version, gateway="customer_gateways.b"),
    )
    text = unknown_caller(facts)
    assert has_no_english(language, text), told(language, text)


TYPED = ("vpnctl ", "vpnd ", "ip ", "ping ", "ss ", "nft ", "sysctl ", "tcpdump ", "resolvectl ")
"""Commands are the same in each language."""


def has_no_english(language: str, text: str) -> bool:
    """Whether no two words of the daemon are left together; a product's own stand last, in brackets."""
    other = re.sub(r"( \(|（)[\w /]+: .*[)）]$", "", told(language, text) or text)
    other = re.sub('vpnctl up|"[^"]*"|“[^”]*”', "", other)
    return re.search(r"(?<![\w./-])[a-z]{2,},? [a-z]{2,}", other) is None


FACTS_OF_CORE = ("detail", "theirs", "ours", "exchange")


def literals() -> set[str]:
    """What the core says in its own words where a fact of a diagnosis is given."""
    found = set()
    for room in ("ike", "tunnel", "daemon"):
        for file in (VPND / room).rglob("*.py"):
            calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
            for keyword in (one for call in calls for one in call.keywords if one.arg in FACTS_OF_CORE):
                found |= set(_texts(keyword.value))
    return {text for text in found if re.search(r"[a-z]{2,} [a-z]{2,}", text)}


def _texts(value: ast.AST) -> Iterator[str]:
    if isinstance(value, ast.JoinedStr):
        yield "".join(str(one.value) if isinstance(one, ast.Constant) else "7" for one in value.values)
    elif isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield value.value
    elif not isinstance(value, ast.Call):
        for inner in ast.iter_child_nodes(value):
            yield from _texts(inner)


@pytest.mark.parametrize("language", OTHERS)
def test_what_the_core_says_in_its_own_words_is_known(language: str) -> None:
    said = literals()
    assert "off or another group" in said
    assert [text for text in sorted(said) if told(language, text) is None] == []


WRONG = [
    {"ike": {"encryption": "des", "integrity": "md5", "dh_group": [1, 2, 5, 24]}},
    {"ike": {"encryption": "aes-12", "integrity": [], "dh_group": 3, "lifetime": 1, "local_id": "a b"}},
    {"ike": {"version": "ikev1", "negotiation_mode": "aggressive", "dh_group": [14, 2]}, "routes": []},
    {"ike": {"version": "ikev1", "encryption": "aes-128-gcm"}, "ipsec": {"encryption": "chacha20-poly1305"}},
    {"ipsec": {"encryption": ["sm4", "3des"], "pfs": "none", "lifetime_kb": -1, "lifetime": "x"}},
    {"dpd": {"timeout": 9}, "priority": "many", "negotiation": "x", "communication": "y", "profile": "z"},
    {"dpd": {"timeout": 20, "action": "disconnect"}, "pre_shared_key": "plain: short "},
    {"dpd": {"timeout": 90}, "profile": "tencent-cloud", "description": "x" * 201},
    {"dpd": {"timeout": 90}, "description": "a\nb", "customer_gateway": {"address": "192.0.2.1"}},
    {"customer_gateway": {"address": "any"}, "pre_shared_key": "plain:'short'"},
    {"customer_gateway": {"address": "1.2.3"}, "routes": ["10.0.0.0/33", "10.0.0.1/8", "127.0.0.0/8"]},
    {"customer_gateway": "nobody", "routes": ["224.0.0.0/4", "0.0.0.0/8", "10.2.0.0/16", "10.2.0.0/16"]},
    {"customer_gateway": {"address": "2001:db8::1"}, "routes": ["10.2.0.0/16"]},
    {"communication": "spd-policy"},
    {"communication": "spd-policy", "spd": [{"local": ["10.0.0.0/24"], "remote": ["2001:db8::/64"]}]},
    {"communication": "spd-policy", "spd": [{"local": ["10.0.0.0/24"], "remote": ["10.9.0.0/24"]}] * 2},
    {
        "communication": "spd-policy",
        "spd": [{"local": ["10.0.0.0/24"], "remote": [f"10.9.{n}.0/24" for n in range(201)]}],
    },
    {"health_check": {"enabled": True, "local": "127.0.0.1", "remote": "127.0.0.1"}},
    {"health_check": {"enabled": True, "local": "10.2.0.1", "remote": "x"}, "routes": ["10.2.0.0/16"]},
]


@pytest.mark.parametrize("language", OTHERS)
@pytest.mark.parametrize("table", WRONG, ids=lambda table: ",".join(table))
def test_what_is_wrong_with_a_form_is_known(table: dict[str, object], language: str) -> None:
    gateway = Source(
        "vpnd.toml", {"gateway": {"name": "hq", "address": "192.0.2.1"}}, main=True, private=True
    )
    whole = {"customer_gateway": {"address": "198.51.100.1"}, "pre_shared_key": "plain:x y", **table}
    request = Source("request", {"tunnels": {"a": whole}}, private=True, from_api=True)
    problems = check([gateway, request], Findings()).problems
    assert problems
    for problem in problems:
        for text in (problem.message, problem.hint):
            assert text is None or is_told(language, text), told(language, text)


def test_values_stay_as_they_are_and_sentences_within_sentences_do_not() -> None:
    text = told(
        "zh", "10.1.0.0/24 - 10.2.0.0/24: the encryption of the IKE SA differs: the peer has a, we have b"
    )
    assert text == "10.1.0.0/24 - 10.2.0.0/24：IKE SA 的加密算法不一致：对端为 a，本端为 b"
    assert told("zh", "the pre-shared keys differ (IKE_AUTH); trying again in 5 s") == (
        "预共享密钥不一致（IKE_AUTH）；5 秒后重试"
    )
    assert told("zh", "up with {0.__class__}") == "已与 {0.__class__} 连接", "a value is no pattern"
    assert told("zh", "what nobody says") is None
    assert told("zh", "x" * (MAX_SAID + 1)) is None


def test_who_has_changed_what_is_known() -> None:
    """`Commands.do` puts these events together."""
    assert told("zh", "tunnel created, asked by uid 0") == "通道已创建，由 uid 0 请求"
    gateway = "customer gateway office created, asked by token ci from 192.0.2.9"
    assert told("zh", gateway) == "对端网关 office 已创建，由 token ci from 192.0.2.9 请求"
    assert told("zh", "rekey, asked by uid 0") == "rekey，由 uid 0 请求"


KEY_HINT = "vpnctl psk rotate a --prove, when the peer has it; or --force"


@pytest.mark.parametrize(
    "text",
    [
        "the files differ from what runs: they hold a version that was rolled back "
        "(it was not confirmed in time)",
        "the files differ from what runs: they hold a version that was rolled back "
        "(vpnctl rollback went back to configuration 3)",
        "the confirmed configuration is in force again: "
        "a was up and did not come up again: not up after 30 s",
        "the configuration goes back in 30 s unless it is confirmed",
        "E-UNCONFIRMED: the configuration waits to be confirmed, for 3 s more"
        " – vpnctl confirm, or vpnctl rollback",
        f"E-NOT-PROVED: the peer of a was not seen with the next key, 51b2-0e9d – {KEY_HINT}",
        "E-ROTATING: a has a next key already, 51b2-0e9d – finish or cancel that first",
        "E-PSK-SAME: the next key is the current one – make another one",
        "E-NOT-PROVED: a: the peer has not shown the next key within 15 s; the current one goes on",
        "which pre-shared keys are in use cannot be kept over a restart: Is a directory",
    ],
)
@pytest.mark.parametrize("language", OTHERS)
def test_how_a_change_or_a_key_stands_is_known(text: str, language: str) -> None:
    assert told(language, text) is not None
    said = re.sub(r"vpnctl psk rotate \S+", "", told(language, text) or text)
    assert is_told(language, said), said


def test_a_text_of_a_peer_takes_no_time() -> None:
    known = "the peer has a, we have b: it has c; "
    for text in (known * 30, ": ".join("ab" for _ in range(240)), "; ".join(["set ike.x"] * 90), " (" * 400):
        told("zh", text[:MAX_SAID])


async def test_a_sentence_that_is_not_known_is_marked_as_english(browser: Browser) -> None:
    browser.extra = {"Accept-Language": "zh"}
    page = (await browser.get("/tunnel?name=branch-b")).text
    assert "在两端设置相同的密钥" in page
    assert "AUTHENTICATION_FAILED（IKE_AUTH）" in page
    assert '<span lang="en">vpnctl psk fingerprint branch-b</span>' in page
    assert teller("zh")("what nobody says") == '<span lang="en">what nobody says</span>'


@pytest.mark.parametrize("language", OTHERS)
@pytest.mark.parametrize("key", BETTER)
def test_what_is_better_is_said_whole(key: str, language: str) -> None:
    shown = told(language, f"better: {BETTER[key]}") or ""
    assert shown
    assert not re.search(r"better| or |with", shown), shown
