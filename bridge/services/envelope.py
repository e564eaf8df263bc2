"""The sealed release: SignedAndEnvelopedData of GM/T 0010-2012 (GB/T 35275-2017), DER.

``SEQUENCE { signedAndEnvelopedData OID, [0] { version 1, recipientInfos, digestAlgorithms {SM3},
encryptedContentInfo, signerInfos } }`` with one recipient and one signer:

* the content is encrypted with SM4-GCM (1.2.156.10197.1.104.8, parameters as RFC 5084: 12-byte nonce, 16-byte tag, the
  tag at the end of ``encryptedContent``) under a fresh 16-byte key;
* that key is encrypted to the recipient by SM2 (``SM2Cipher`` of GM/T 0009, DER);
* the signer signs the plaintext by SM2 with SM3 (``SM2Signature`` DER, signer id ``1234567812345678``), so that the
  signature stays checkable after opening.

There are no certificates in it: members' keys live on the ledger. The issuer-and-serial fields name the certificate
that the consortium's SM2 certificate authority issues for such a key (``bridge.pki.gm_certificates``): its issuer is
organisation = chain id, common name = ``GM_CA_NAME``; its serial number is the key id (the first 8 bytes of SM3 over
the public key). So tools that know certificates only find the right one, and we need none.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from asn1crypto import core

from anchor import gm
from anchor.errors import AnchorError
from bridge.errors import PeerRejected
from bridge.pki.gm_structures import (
    OID_DATA,
    OID_SIGNED_AND_ENVELOPED,
    OID_SM2_ENCRYPT,
    OID_SM4_GCM,
    SM3_ALGORITHM,
    VERSION_1,
    ContentInfo,
    GcmParameters,
    KeyName,
    object_id,
    octets,
    raw_signature,
    sequence,
    set_of,
    signer_info,
    tagged,
)

NONCE_BYTES = 12
TAG_BYTES = 16
KEY_BYTES = 16
MAX_ENVELOPE_BYTES = 256 * 1024 * 1024  # a release is held in memory on both sides; a larger record must be limited

_SIGNED_AND_ENVELOPED, _DATA, _SM4_GCM = (object_id(each) for each in (OID_SIGNED_AND_ENVELOPED, OID_DATA, OID_SM4_GCM))
_KEY_ENCRYPTION, _TAG_LENGTH = sequence(object_id(OID_SM2_ENCRYPT)), core.Integer(TAG_BYTES).dump()


@dataclass(frozen=True, slots=True)
class Opened:
    """What an envelope held, and whose signature over it was verified."""

    content: bytes
    signer: KeyName


def seal(content: bytes, *, chain: str, signing_key: gm.PrivateKey, recipient_key: gm.PublicKey) -> bytes:
    """Return the envelope of ``content``, signed by one member's key and sealed for another's, as DER."""
    key, nonce = secrets.token_bytes(KEY_BYTES), secrets.token_bytes(NONCE_BYTES)
    parts = _Parts(
        recipient=KeyName(chain, recipient_key.key_id),
        signer=KeyName(chain, signing_key.public_key.key_id),
        encrypted_key=recipient_key.encrypt(key),
        nonce=nonce,
        encrypted=gm.sm4_gcm_encrypt(key, nonce, content),
        signature=signing_key.sign(content),
    )
    return parts.write()


def open_envelope(
    envelope: bytes,
    *,
    chain: str,
    decryption_key: Callable[[str], gm.PrivateKey | None],
    signing_key: Callable[[str], gm.PublicKey | None],
) -> Opened:
    """Open and verify an envelope of this chain.

    Both lookups are by key id and return None for a key that does not count: ``decryption_key`` among this node's own,
    past ones included; ``signing_key`` among the expected signer's (on the ledger). Raises
    ``PeerRejected``: "envelope-malformed", "envelope-other-recipient", "envelope-unknown-signer",
    "envelope-does-not-open", "envelope-bad-signature".
    """
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise PeerRejected("envelope-malformed", "the sealed envelope is larger than this node accepts")
    try:
        parts = _read(envelope)
    except (ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
        raise PeerRejected("envelope-malformed", "the sealed envelope cannot be read") from error
    private = decryption_key(parts.recipient.key_id) if parts.recipient.chain == chain else None
    if private is None:
        raise PeerRejected("envelope-other-recipient", "the envelope is sealed for another key")
    public = signing_key(parts.signer.key_id) if parts.signer.chain == chain else None
    if public is None:
        raise PeerRejected("envelope-unknown-signer", "the envelope is signed by a key that is not on the ledger")
    try:
        content = gm.sm4_gcm_decrypt(private.decrypt(parts.encrypted_key), parts.nonce, parts.encrypted)
    except (AnchorError, ValueError) as error:
        raise PeerRejected("envelope-does-not-open", "the envelope does not open: it was altered") from error
    try:
        public.verify(content, parts.signature)
    except AnchorError as error:
        raise PeerRejected("envelope-bad-signature", "the envelope's signature does not hold") from error
    return Opened(content, parts.signer)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What varies from envelope to envelope."""

    recipient: KeyName
    signer: KeyName
    encrypted_key: bytes
    nonce: bytes
    encrypted: bytes
    signature: bytes

    def write(self) -> bytes:
        """Return the envelope of these parts."""
        parameters = sequence(octets(self.nonce), _TAG_LENGTH)
        data = sequence(
            VERSION_1,
            set_of(sequence(VERSION_1, self.recipient.der(), _KEY_ENCRYPTION, octets(self.encrypted_key))),
            set_of(SM3_ALGORITHM),
            sequence(_DATA, sequence(_SM4_GCM, parameters), tagged(0, self.encrypted, constructed=False)),
            set_of(signer_info(self.signer.der(), self.signature)),
        )
        return sequence(_SIGNED_AND_ENVELOPED, tagged(0, data, constructed=True))


def _read(envelope: bytes) -> _Parts:
    """Take the structure apart; raises one of the usual parsing errors for anything but what ``_Parts.write`` gives.

    What was read is written again and compared: so every algorithm, version and length is the one that members use,
    and an envelope has one accepted encoding.
    """
    data = ContentInfo.load(envelope, strict=True)["content"]
    recipient, signer = data["recipient_infos"][0], data["signer_infos"][0]
    info = data["encrypted_content_info"]
    parts = _Parts(
        KeyName.read(recipient["issuer_and_serial"]),
        KeyName.read(signer["issuer_and_serial"]),
        recipient["encrypted_key"].native,
        info["content_encryption_algorithm"]["parameters"].parse(GcmParameters)["nonce"].native,
        info["encrypted_content"].native,
        raw_signature(signer["encrypted_digest"].native),
    )
    if len(parts.nonce) != NONCE_BYTES or parts.write() != envelope:
        raise ValueError("not the structure that members exchange")
    return parts
