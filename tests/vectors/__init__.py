"""Published test vectors, each file as blocks of `name = value`; ORIGINS.md says where each comes from."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


class Vector(dict[str, str]):
    """One block of a file. Values are text; `bytes_of` decodes the hexadecimal ones."""

    def bytes_of(self, name: str) -> bytes:
        """The value of `name` as bytes; an empty value is no bytes."""
        return bytes.fromhex(self[name])

    def __str__(self) -> str:
        return self["name"]


def read(file: str) -> list[Vector]:
    """Every block of `file`, in order. Lines that begin with # are comments; an empty line ends a block."""
    vectors: list[Vector] = []
    block: Vector | None = None
    for line in (_HERE / file).read_text(encoding="ascii").splitlines():
        if line.startswith("#"):
            continue
        if not line.strip():
            block = None
            continue
        if block is None:
            block = Vector()
            vectors.append(block)
        name, _, value = line.partition("=")
        block[name.strip()] = value.strip()
    return vectors
