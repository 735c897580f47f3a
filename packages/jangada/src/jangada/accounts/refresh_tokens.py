"""Refresh tokens: opaque to clients, stored only as hashes, derived and never kept in clear.

A token names its tenant, its family (the session) and its generation, and ends in an HMAC over all
three. So the successor of a token can be made again for a parallel refresh without having been
stored, and an old token of a family can be told from a forged one: only an old one ends the
session.
"""

import base64
import binascii
import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import Final, Self
from uuid import UUID

_PREFIX: Final = "jgr_"
_VERSION: Final = 1
_NAMED: Final = struct.Struct(">B16s16sI")
_LAYOUT: Final = struct.Struct(f"{_NAMED.format}32s")
_CHARACTERS: Final = _LAYOUT.size * 4 // 3
"""69 bytes are a multiple of 3, so every token has exactly one spelling."""


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token taken apart. `mac` is 256 bits that only the holder of the key can make."""

    tenant_id: UUID
    family: UUID
    generation: int
    mac: bytes

    @classmethod
    def derive(cls, key: bytes, *, tenant_id: UUID, family: UUID, generation: int) -> Self:
        """The one token of a family's generation."""
        named = _NAMED.pack(_VERSION, tenant_id.bytes, family.bytes, generation)
        return cls(tenant_id, family, generation, hmac.digest(key, named, "sha256"))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The token that the text spells; None if it is no refresh token at all."""
        encoded = text.removeprefix(_PREFIX)
        if encoded == text or len(encoded) != _CHARACTERS:
            return None
        try:
            raw = base64.b64decode(encoded, altchars=b"-_", validate=True)
            version, tenant, family, generation, mac = _LAYOUT.unpack(raw)
        except (binascii.Error, ValueError, struct.error):
            return None
        if version != _VERSION:
            return None
        return cls(UUID(bytes=tenant), UUID(bytes=family), generation, mac)

    def encode(self) -> str:
        raw = _LAYOUT.pack(
            _VERSION, self.tenant_id.bytes, self.family.bytes, self.generation, self.mac
        )
        return _PREFIX + base64.urlsafe_b64encode(raw).decode()

    def digest(self) -> bytes:
        """What is stored: 256 bits that nobody can guess need no slow hash."""
        return hashlib.sha256(self.encode().encode()).digest()

    def is_genuine(self, key: bytes) -> bool:
        """Whether we made it (under this key), in constant time."""
        genuine = self.derive(
            key, tenant_id=self.tenant_id, family=self.family, generation=self.generation
        )
        return hmac.compare_digest(self.mac, genuine.mac)
