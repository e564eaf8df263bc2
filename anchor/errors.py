"""Every error that leaves the anchor package.

AnchorError
├── CanonicalError         bytes that have no FHIR canonical JSON form
├── KeyFormatError         bytes that are not a key of the expected kind
├── DecryptionError        a ciphertext that does not open
├── VerificationError      a proof, signature, checkpoint or receipt that does not hold
│   ├── SignatureInvalid   an SM2 signature that does not verify
│   └── ReplayDiffers      a ledger whose transactions do not give what its host has signed; carries the evidence
├── FormatError            a checkpoint, receipt, proof or trust file that cannot be read
├── TransactionRejected    the ledger's rules refused a transaction; carries a stable code
└── ChainError             an engine did not do what was asked
    ├── ChainUnavailable   no answer within the bound; the caller may retry
    └── ChainCorrupt       what the engine stores contradicts itself
"""


class AnchorError(Exception):
    """Base of all errors of this package. The text is fit for a client: it never holds patient data or keys."""


class CanonicalError(AnchorError):
    """Bytes that have no FHIR canonical JSON form."""


class KeyFormatError(AnchorError):
    """Bytes that are not a key of the expected kind."""


class DecryptionError(AnchorError):
    """A ciphertext that does not open: wrong key, wrong associated data, or altered bytes."""


class VerificationError(AnchorError):
    """A proof, signature, checkpoint or receipt that does not hold."""


class SignatureInvalid(VerificationError):
    """An SM2 signature that does not verify."""


class ReplayDiffers(VerificationError):
    """A ledger whose transactions do not give what its host has signed.

    ``place`` names the block or the state; ``own`` is the unsigned checkpoint (a note) of how far the replay agreed or
    what it gives instead, ``evidence`` the transactions that do not follow, as JSON (empty where only states differ).
    """

    def __init__(self, message: str, *, place: str, own: bytes, evidence: bytes = b"") -> None:
        super().__init__(message)
        self.place, self.own, self.evidence = place, own, evidence


class FormatError(AnchorError):
    """A checkpoint, receipt, proof or trust file that cannot be read."""


class TransactionRejected(AnchorError):
    """The ledger's rules refused a transaction.

    ``code`` is stable and meant for programs (see ``anchor.transaction.Code``); the text is for people.
    """

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(message or code)
        self.code = code


class ChainError(AnchorError):
    """A ledger engine did not do what was asked."""


class ChainUnavailable(ChainError):
    """No answer from the ledger within the bound; nothing is known to have been committed and a retry is safe."""


class ChainCorrupt(ChainError):
    """What the engine stores contradicts itself."""
