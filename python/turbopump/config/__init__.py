"""The configuration: one file, the same on every box, checked whole before anything starts.

Every limit has its default and its reason here. Not how the file is put into words when it is wrong: that is
`problem.py`.
"""

from turbopump.config.address import Address, resolve
from turbopump.config.callback import Callback, Happening, Terms
from turbopump.config.cluster import Cluster
from turbopump.config.document import Config, Log, checked_section, load, parse, schema
from turbopump.config.keyspace import Keyspace
from turbopump.config.limits import Limits
from turbopump.config.member import Guests, Member, Tcp
from turbopump.config.options import Secrets, engine_options, resolved
from turbopump.config.placement import copies_of, is_clone, keepers, layout_digest, rules
from turbopump.config.public_key import PublicKey
from turbopump.config.section import Section, is_loopback, parse_mode, parse_size

__all__ = [
    "Address",
    "Callback",
    "Cluster",
    "Config",
    "Guests",
    "Happening",
    "Keyspace",
    "Limits",
    "Log",
    "Member",
    "PublicKey",
    "Secrets",
    "Section",
    "Tcp",
    "Terms",
    "checked_section",
    "copies_of",
    "engine_options",
    "is_clone",
    "is_loopback",
    "keepers",
    "layout_digest",
    "load",
    "parse",
    "parse_mode",
    "parse_size",
    "resolve",
    "resolved",
    "rules",
    "schema",
]
