"""<domain>: the model of a guest, one module for each subject; `parse` joins them."""

from virtd.conf.domain.aliases import assign_aliases
from virtd.conf.domain.domain import Domain
from virtd.conf.domain.parse import format_both, format_domain, parse_domain

__all__ = ["Domain", "assign_aliases", "format_both", "format_domain", "parse_domain"]
