"""The one exception that leaves `vpnd.wire`."""


class DecodeError(ValueError):
    """Bytes from the network do not follow their format.

    `field` names the value that could not be read, as the RFC's drawing does, so that a counter or a
    diagnosis can say where. `notify_data` and the notify type are the business of the caller: the same
    bytes are INVALID_SYNTAX in one exchange and silence in another.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class UnsupportedCriticalPayload(DecodeError):
    """An unknown payload has its critical bit set (RFC 7296 section 2.5)."""

    def __init__(self, payload_type: int) -> None:
        super().__init__("payload type", f"{payload_type} is critical and unknown")
        self.payload_type = payload_type


class UnsupportedMajorVersion(DecodeError):
    """The header's major version is neither 1 nor 2 (RFC 7296 section 2.5)."""

    def __init__(self, major: int) -> None:
        super().__init__("major version", f"{major} is not spoken here")
        self.major = major
