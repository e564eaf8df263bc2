"""Every error that leaves the bridge package.

BridgeError
├── SettingsError             a setting, or a combination of settings, that the node refuses to start with
├── AuthenticationRequired    nobody is known to be calling, or the proof offered does not hold
├── PermissionDenied          the caller is known and may not do this
├── InvalidRequest            a request that cannot be understood
│   └── SearchParameterError  a search parameter that is unknown, or whose value has no meaning
├── NotFound                  no such thing here
│   └── Gone                  it was here and has been deleted
├── Conflict                  the request contradicts what is stored
│   └── VersionConflict       another writer changed the same resource first; roll back and repeat
├── StorageError              the node's own database did not do what was asked
│   ├── DatabaseUnavailable   it cannot be reached or is locked; a retry is safe
│   ├── SealBroken            a sealed row that does not open: altered, moved, or sealed under another key
│   ├── KeyDestroyed          the data key of this subject was destroyed: its content is gone for good
│   └── LeaseLost             another worker took the work over; nothing of it was committed
├── Overloaded                a bounded queue is full; nothing was taken, try later
├── IngestError               a source delivered what cannot be taken
├── PeerError                 another institution did not do what was asked
│   ├── PeerUnavailable       it did not answer within the bound
│   └── PeerRejected          it refused, or what it sent does not hold; carries a stable code
├── CertificateInvalid        a certificate or signature of ours that does not hold; carries a stable code
└── DisclosureRefused         the rules of exchange refuse it; carries a stable code

Two texts each: ``message`` is fit for a client and holds no patient data, key or raw input; ``cause`` is for the node's
own log and obeys the same rule. ``bridge.outcomes`` maps the types to HTTP.
"""

from __future__ import annotations


class BridgeError(Exception):
    """Base of all errors of this package; ``message`` is for the client, ``cause`` for the log."""

    default_message = "the request could not be completed"

    def __init__(self, message: str = "", *, cause: str = "") -> None:
        self.message = message or self.default_message
        self.cause = cause
        super().__init__(self.message)


class SettingsError(BridgeError):
    """A setting, or a combination of settings, that the node refuses to start with; the message names it."""


class AuthenticationRequired(BridgeError):
    """Nobody is known to be calling, or the proof offered does not hold."""

    default_message = "authentication is required"


class PermissionDenied(BridgeError):
    """The caller is known and may not do this."""

    default_message = "the caller may not do this"


class InvalidRequest(BridgeError):
    """A request that cannot be understood; the message names the part."""

    default_message = "the request cannot be understood"


class SearchParameterError(InvalidRequest):
    """A search parameter that is unknown, or whose value has no meaning; ``parameter`` names it."""

    def __init__(self, message: str, parameter: str = "") -> None:
        super().__init__(message)
        self.parameter = parameter


class NotFound(BridgeError):
    """No such thing here."""

    default_message = "not found"


class Gone(NotFound):
    """It was here and has been deleted."""

    default_message = "deleted"


class Conflict(BridgeError):
    """The request contradicts what is stored."""

    default_message = "the request contradicts what is stored"


class PreconditionFailed(BridgeError):
    """What a client made its request depend on is not so."""

    default_message = "a condition of the request is not fulfilled"


class VersionConflict(Conflict):
    """Another writer changed the same resource first: roll the transaction back and repeat it."""

    default_message = "the resource was changed by another writer at the same time"


class StorageError(BridgeError):
    """The node's own database did not do what was asked."""

    default_message = "the node's storage did not do what was asked"


class DatabaseUnavailable(StorageError):
    """The database cannot be reached or stays locked; a retry is safe."""

    default_message = "the node's database is not available / 节点数据库不可用，请检查其是否启动"


class SealBroken(StorageError):
    """A sealed row that does not open: altered, moved to another place, or sealed under another key."""

    default_message = "stored content does not open under its key"


class KeyDestroyed(StorageError):
    """The data key of this subject was destroyed: its content is gone for good."""

    default_message = "the content was erased"


class LeaseLost(StorageError):
    """Another worker took the work over in the meantime; nothing of it was committed here."""

    default_message = "another worker has taken this over"


class Overloaded(BridgeError):
    """A bounded queue is full; nothing was taken and the sender should try later."""

    default_message = "the node takes no more work at the moment; try again later"


class QuotaExceeded(BridgeError):
    """A member or a practitioner has asked for more than its quota; the next hour or day has a new one."""

    default_message = "the quota is used up; try again later / 配额已用完，请稍后再试"


class IngestError(BridgeError):
    """A source delivered what cannot be taken."""

    default_message = "the delivery cannot be taken"


class PeerError(BridgeError):
    """Another institution did not do what was asked."""

    default_message = "the other institution did not do what was asked"


class PeerUnavailable(PeerError):
    """Another institution did not answer within the bound."""

    default_message = "the other institution does not answer"


class PeerRejected(PeerError):
    """Another institution refused, or what it sent does not hold; ``code`` is stable."""

    def __init__(self, code: str, message: str = "", *, cause: str = "") -> None:
        super().__init__(message or code, cause=cause)
        self.code = code


class CertificateInvalid(BridgeError):
    """A certificate, certificate request or signed record that does not hold; ``code`` is stable."""

    def __init__(self, code: str, message: str = "", *, cause: str = "") -> None:
        super().__init__(message or code, cause=cause)
        self.code = code


class DisclosureRefused(BridgeError):
    """The rules of exchange refuse a disclosure; ``code`` is stable."""

    def __init__(self, code: str, message: str = "", *, cause: str = "") -> None:
        super().__init__(message or code, cause=cause)
        self.code = code
