"""The page of the diagnoses: every code, what it means, what else may be the reason, and what to do."""

from __future__ import annotations

from docs.markdown import page
from vpnd.control.diagnoses import explain
from vpnd.model.diagnosis import Code, Diagnosis


def diagnoses_page() -> str:
    """Every code with the words that `vpnctl why` has for it, without the values of a case."""
    return page(
        "Diagnoses",
        "What `vpnctl why NAME` explains, by its code. In a real case it shows what the peer said and what is"
        " configured here as well. Codes do not change. Generated from `vpnd/control/diagnoses.py`.",
        *(_entry(one) for one in Code),
    )


def _entry(one: Code) -> str:
    known = explain(Diagnosis.of(one))
    lines = [f"## {one.value}", "", f"{_sentence(known.what)}", ""]
    if known.also_possible:
        lines += ["Also possible:", "", *(f"- {text}" for text in known.also_possible), ""]
    if known.change:
        lines += [f"**What to do:** {known.change}.", ""]
    if known.try_:
        lines += ["**Try:** " + ", ".join(f"`{command}`" for command in known.try_), ""]
    return "\n".join(lines).strip()


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
