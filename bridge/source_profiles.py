"""The profiles that the settings name, read from their files."""

from __future__ import annotations

from pathlib import Path

from bridge.errors import SettingsError
from bridge.keys.store import KeyStore
from bridge.services.ingest import DEFAULT_PROFILE
from bridge.settings import Settings
from fhir_adapters import SourceProfile
from fhir_adapters.codes import check_code_maps
from fhir_adapters.errors import ProfileError

FHIR_PATH = "/fhir"


def _profile_names(settings: Settings) -> dict[str, str]:
    """Return the name of every source's profile by the source's name, and that of sources without one of their own."""
    return {DEFAULT_PROFILE: "default"} | {source.name: source.profile for source in settings.sources}


def profile_files(settings: Settings) -> list[Path]:
    """Return the files of all profiles."""
    return [settings.profile_path(name) for name in _profile_names(settings).values()]


def load_profiles(settings: Settings, keys: KeyStore) -> dict[str, SourceProfile]:
    """Return the profile of every source by its name, and one named "default", with this node's id key and base URL."""
    names = _profile_names(settings)
    id_key, base_url = keys.read("resource-id.key"), settings.node.endpoint.rstrip("/") + FHIR_PATH
    profiles = {}
    for source, name in names.items():
        file = settings.profile_path(name)
        try:
            read = SourceProfile.from_toml(file.read_bytes(), id_key) if file.is_file() else SourceProfile()
            check_code_maps(read)
            profiles[source] = read.with_id_key(id_key).with_base_url(base_url)
        except (ProfileError, OSError) as error:
            reason = str(error) if isinstance(error, ProfileError) else error.strerror
            raise SettingsError(f"the profile of source {source} ({file}) cannot be used: {reason}") from error
    return profiles
