"""The XML of secrets, and of references to them."""

from virtd.conf.secret.reference import SecretReference
from virtd.conf.secret.secret import Secret, format_secret, parse_secret

__all__ = ["Secret", "SecretReference", "format_secret", "parse_secret"]
