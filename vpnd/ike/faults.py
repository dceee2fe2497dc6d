"""What can end an exchange, as classes: each version derives its own and adds the notify it travels as."""

from __future__ import annotations

from typing import ClassVar, Unpack

from vpnd.model.diagnosis import Code, Diagnosis, Known


class Fault(Exception):
    """An exchange failed for a reason that the peer may be told.

    Raised anywhere below a handler and caught once, in the engine. `diagnosis` explains it to the operator,
    else one of `code`, or of the class's, with the facts. `notify` is the error notify's type in the registry
    of the version that derives the class, and `data` its notification data.
    """

    notify: ClassVar[int]
    code: ClassVar[Code]

    def __init_subclass__(cls, notify: int, code: Code) -> None:
        cls.notify, cls.code = notify, code

    def __init__(
        self,
        data: bytes = b"",
        diagnosis: Diagnosis | None = None,
        code: Code | None = None,
        **facts: Unpack[Known],
    ) -> None:
        self.data = data
        self.diagnosis = diagnosis or Diagnosis.of(code or self.code, **facts)
        super().__init__(self.diagnosis)


class Drop(Exception):
    """A message is not for us, not now, or not authentic: count it under `reason` and say nothing."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
