"""Every error that leaves the adapters.

AdapterError
├── DecodeError          bytes that are not text in any allowed character set
├── ParseError           a message that breaks its format; names the place
├── UnsupportedMessage   a well-formed message of a type that no mapping exists for
├── ProfileError         a site profile that cannot be used
└── ValidationError      a converted resource that is not valid FHIR R4

Texts name the place (segment and field, row and column), never what stood there.
"""


class AdapterError(Exception):
    """Base of all errors of this package.

    ``location`` is the place in the source ("PID-7", "row 3, column birth_date"), "" when there is none.
    """

    def __init__(self, message: str, location: str = "") -> None:
        super().__init__(f"{location}: {message}" if location else message)
        self.location = location


class DecodeError(AdapterError):
    """Bytes that are not text in any allowed character set."""


class ParseError(AdapterError):
    """A message that breaks its format."""


class UnsupportedMessage(AdapterError):
    """A well-formed message of a type that no mapping exists for."""


class ProfileError(AdapterError):
    """A site profile that cannot be used."""


class ValidationError(AdapterError):
    """A converted resource that is not valid FHIR R4."""
