"""A Secret reveals its bytes to `reveal` and to nothing else."""

import copy
import dataclasses
import json
import logging
import pickle
import pprint
import string
import traceback
from dataclasses import dataclass
from typing import cast

import pytest

from vpnd.model.child import EspKeys
from vpnd.model.secret import Secret

KEY = b"correct horse battery staple"
SECRET = Secret(KEY)

PRINTED = {
    "repr": lambda: repr(SECRET),
    "str": lambda: str(SECRET),
    "ascii": lambda: ascii(SECRET),
    "format": lambda: f"{SECRET} {SECRET!s} {SECRET!r} {SECRET!a}",
    "format with a width": lambda: f"{SECRET:>40} {SECRET:x}",
    "str.format": lambda: string.Formatter().format("{0} {0!r} {x:s}", SECRET, x=SECRET),
    "percent": lambda: "%s %r %a" % (SECRET, SECRET, SECRET),  # noqa: UP031 - the old way is what is tested
    "template": lambda: string.Template("$key").substitute(key=SECRET),
    "in a list": lambda: str([SECRET, {"key": SECRET}, (SECRET,)]),
    "pprint": lambda: pprint.pformat({"key": SECRET}),
    "in a dataclass": lambda: repr(EspKeys(SECRET, SECRET, SECRET)),
    "dir": lambda: repr([getattr(SECRET, name, None) for name in ("__doc__", "__slots__", "__class__")]),
}


def leaks(text: str) -> bool:
    """Whether `text` shows the key, as text, as hex, as numbers."""
    numbers = ", ".join(str(byte) for byte in KEY[:4])
    return any(shown in text for shown in (KEY.decode(), "horse", KEY.hex(), KEY.hex().upper(), numbers))


@pytest.mark.parametrize("how", PRINTED)
def test_no_way_of_printing_shows_it(how: str) -> None:
    assert not leaks(PRINTED[how]())


def test_the_way_to_see_a_leak_works() -> None:
    assert leaks(repr(KEY))
    assert leaks(f"{list(KEY)}")
    assert leaks(SECRET.reveal().hex())


def test_a_log_record_does_not_show_it(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("test").warning("key %s in %r", SECRET, {"key": SECRET})
    assert "***" in caplog.text
    assert not leaks(caplog.text)


def test_a_traceback_does_not_show_it() -> None:
    def fail(key: Secret) -> None:
        raise ValueError(f"no use for {key}", key)

    with pytest.raises(ValueError, match="no use") as caught:
        fail(SECRET)
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    text = "".join(shown.format())
    assert "key = Secret(***)" in text
    assert not leaks(text)


def test_it_is_not_pickled() -> None:
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(SECRET, protocol)
    with pytest.raises(TypeError, match="not pickled"):
        copy.deepcopy(SECRET)


def test_it_is_not_json() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps({"key": SECRET})
    assert not leaks(json.dumps({"key": SECRET}, default=str))
    assert not leaks(json.dumps({"key": SECRET}, default=repr))


def test_a_dataclass_that_holds_one_does_not_unfold_it() -> None:
    @dataclass
    class Holder:
        key: Secret

    assert repr(Holder(SECRET)).endswith("Holder(key=Secret(***))")
    with pytest.raises(TypeError, match="not pickled"):
        dataclasses.asdict(Holder(SECRET))


def test_it_is_not_bytes_by_accident() -> None:
    with pytest.raises(TypeError):
        bytes(SECRET)  # type: ignore[call-overload]  # what is tried
    with pytest.raises(TypeError):
        list(SECRET)  # type: ignore[call-overload]  # what is tried
    with pytest.raises(TypeError):
        SECRET + b""  # type: ignore[operator]  # what is tried
    assert not hasattr(SECRET, "__dict__")


def test_reveal_is_the_way_to_the_bytes() -> None:
    assert SECRET.reveal() == KEY
    assert len(SECRET) == len(KEY)


def test_it_does_not_change_with_the_buffer_it_came_from() -> None:
    buffer = bytearray(b"abcd")
    secret = Secret(cast(bytes, buffer))
    buffer[:] = bytes(4)
    assert secret.reveal() == b"abcd"


def test_two_with_the_same_bytes_are_equal() -> None:
    assert Secret(KEY) == SECRET
    assert hash(Secret(KEY)) == hash(SECRET)
    assert Secret(KEY[:-1]) != SECRET
    assert SECRET != KEY
    assert SECRET is not None


def test_an_empty_one_is_false() -> None:
    assert SECRET
    assert not Secret(b"")


def test_the_fingerprint_can_be_read_over_the_phone_and_tells_keys_apart() -> None:
    fingerprint = SECRET.fingerprint()
    assert fingerprint == Secret(KEY).fingerprint()
    assert fingerprint != Secret(KEY + b"!").fingerprint()
    assert len(fingerprint) == 9
    assert set(fingerprint) <= set("0123456789abcdef-")
    assert not leaks(fingerprint)
