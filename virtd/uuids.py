"""UUIDs between their forms: 16 bytes on the wire, text with dashes in XML, file names and messages."""


def to_text(raw: bytes) -> str:
    """The text of 16 bytes, as libvirt writes it."""
    digits = raw.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def to_bytes(text: str) -> bytes:
    """The 16 bytes of a text of 32 hexadecimal digits, with dashes or without."""
    return bytes.fromhex(text.replace("-", ""))
