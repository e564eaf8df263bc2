"""Site profiles: what an adapter must be told about one source.

A profile is a TOML file; every key is optional except ``name``::

    name = "hospital-a-his"
    charset = "GB18030"                  # when the message does not say
    time_zone = "Asia/Shanghai"          # of times without an offset
    base_url = "https://a.example/fhir"  # of fullUrl in Bundles
    default_authority = "HIS"            # who issued an identifier that does not say
    validate = true

    [organization]                       # the institution the source belongs to
    identifier = "12990000MB00000277"    # 统一社会信用代码
    name = "第一人民医院"

    [assigning_authorities]              # namespace in the source -> identifier system
    HIS = "urn:oid:2.16.156.10011.1.13"

    [code_maps.sex]                      # before the tables in fhir_adapters/maps
    "3" = "other"

    [local_fields]                       # HL7 v2: standard place = where the source puts it (hl7v2/local_fields.py)
    "PID-3" = "ZPI-2"

    [[views]]                            # a HIS's own tables as standard views: fhir_adapters/view_mapping.py

The key that resource ids are made with is a secret of the node and never stands in a profile.
"""

import codecs
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

from fhir_adapters.concepts import CONCEPTS
from fhir_adapters.errors import ProfileError
from fhir_adapters.local_field import FieldPlace, local_fields
from fhir_adapters.site_memory import SiteMemory
from fhir_adapters.spelling import refuse_unknown, suggestion
from fhir_adapters.view_mapping import ViewMapping
from fhir_adapters.view_mapping_toml import view_mappings

PUBLIC_ID_KEY = b"yiqiao/stateless-convert/public-id-key/v1"
"""Key of the stateless command, which keeps no secret: anyone can recompute its ids. A node has its own."""

MIN_ID_KEY_BYTES = 16
"""Shortest id key accepted, in bytes: below 128 bits the ids could be searched."""

DEFAULT_BASE_URL = "https://node.invalid/fhir"
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s\"<>\\^`{|}]+")
_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class DefaultOrganization:
    """The institution that a source belongs to: 统一社会信用代码 ("" when not told) and name."""

    identifier: str = ""
    name: str = ""


@dataclass(frozen=True)
class SourceProfile:
    """Everything an adapter is told about a source. Immutable; :meth:`from_toml` reads one, checked."""

    name: str = "default"
    charset: str = "GB18030"
    time_zone: str = "Asia/Shanghai"
    assigning_authorities: Mapping[str, str] = field(default_factory=lambda: _EMPTY)
    code_maps: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: _EMPTY)
    organization: DefaultOrganization = DefaultOrganization()
    default_authority: str = "LOCAL"
    base_url: str = DEFAULT_BASE_URL
    id_key: bytes = field(default=PUBLIC_ID_KEY, repr=False)
    validate: bool = True
    views: tuple[ViewMapping, ...] = ()
    local_fields: Mapping[FieldPlace, FieldPlace] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of source times that carry no offset."""
        return _zone(self.time_zone)

    @cached_property
    def memory(self) -> "SiteMemory":
        """What adapters remember of this source between messages. Nothing of it changes what a message becomes."""
        return SiteMemory()

    def with_id_key(self, id_key: bytes) -> "SourceProfile":
        """This profile with the node's secret for resource ids. Raises ProfileError when it is too short."""
        if len(id_key) < MIN_ID_KEY_BYTES:
            raise ProfileError(f"an id key needs at least {MIN_ID_KEY_BYTES} bytes")
        return replace(self, id_key=id_key)

    def with_base_url(self, base_url: str) -> "SourceProfile":
        """This profile for a node that serves FHIR at ``base_url``. Raises ProfileError."""
        return replace(self, base_url=_uri(base_url, "base_url").rstrip("/"))

    @classmethod
    def from_toml(cls, text: str | bytes, id_key: bytes = PUBLIC_ID_KEY) -> "SourceProfile":
        """Read and check a profile. Raises ProfileError naming the key that is wrong."""
        try:
            table = tomllib.loads(text.decode() if isinstance(text, bytes) else text)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProfileError("not a TOML file in UTF-8") from error
        return cls.from_mapping(table).with_id_key(id_key)

    @classmethod
    def from_mapping(cls, table: Mapping[str, Any]) -> "SourceProfile":
        """The profile that a parsed TOML table holds. Raises ProfileError naming the key that is wrong."""
        refuse_unknown(table, [each.name for each in fields(cls) if each.name != "id_key"])
        name = _text(table, "name", "")
        if not name:
            raise ProfileError("a profile needs a name", "name")
        organization = _table(table, "organization")
        refuse_unknown(organization, ("identifier", "name"), "organization")
        authorities = _table(table, "assigning_authorities")
        return cls(
            name=name,
            charset=_charset(_text(table, "charset", cls.charset)),
            time_zone=_time_zone(_text(table, "time_zone", cls.time_zone)),
            assigning_authorities=MappingProxyType(
                {key: _uri(value, f"assigning_authorities.{key}") for key, value in authorities.items()}
            ),
            code_maps=_code_maps(_table(table, "code_maps")),
            organization=DefaultOrganization(
                _text(organization, "identifier", "", "organization."), _text(organization, "name", "", "organization.")
            ),
            default_authority=_text(table, "default_authority", cls.default_authority),
            base_url=_uri(_text(table, "base_url", DEFAULT_BASE_URL), "base_url").rstrip("/"),
            validate=_flag(table, "validate", True),
            views=view_mappings(table.get("views", [])),
            local_fields=local_fields(_table(table, "local_fields")),
        )


DEFAULT_PROFILE = SourceProfile()
"""What `convert` uses when it is told nothing."""


@lru_cache(maxsize=32)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _text(table: Mapping[str, Any], key: str, default: str, prefix: str = "") -> str:
    value = table.get(key, default)
    if not isinstance(value, str):
        raise ProfileError("must be text", prefix + key)
    return value.strip()


def _flag(table: Mapping[str, Any], key: str, default: bool) -> bool:
    value = table.get(key, default)
    if not isinstance(value, bool):
        raise ProfileError("must be true or false", key)
    return value


def _table(table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = table.get(key, _EMPTY)
    if not isinstance(value, Mapping):
        raise ProfileError("must be a table", key)
    return value


def _uri(value: Any, key: str) -> str:
    if not isinstance(value, str) or not _URI.fullmatch(value):
        raise ProfileError("must be a URI (https://…, urn:oid:…)", key)
    return value


def _charset(name: str) -> str:
    try:
        info = codecs.lookup(name)
    except (LookupError, ValueError) as error:
        raise ProfileError("no such character set", "charset") from error
    if not getattr(info, "_is_text_encoding", True):
        raise ProfileError("not a character set of text", "charset")
    return name


def _time_zone(name: str) -> str:
    try:
        _zone(name)
    except (LookupError, ValueError, OSError) as error:
        raise ProfileError("no such time zone", "time_zone") from error
    return name


def _code_maps(table: Mapping[str, Any]) -> Mapping[str, Mapping[str, str]]:
    maps: dict[str, Mapping[str, str]] = {}
    for name, entries in table.items():
        if name not in CONCEPTS:
            raise ProfileError("no such concept" + suggestion(name, CONCEPTS), f"code_maps.{name}")
        if not isinstance(entries, Mapping) or not all(isinstance(code, str) for code in entries.values()):
            raise ProfileError("must be a table of text", f"code_maps.{name}")
        maps[name] = MappingProxyType(dict(entries))
    return MappingProxyType(maps)
