"""The national algorithms: SM2 signatures and encryption, SM3, HMAC-SM3 and SM4-GCM.

Algorithm-conformant, not a certified cryptographic module. Implementations are in ``anchor.gm.providers``.
"""

from anchor.gm.cipher import sm4_gcm_decrypt, sm4_gcm_encrypt
from anchor.gm.hashing import hmac_sm3, sm3
from anchor.gm.keys import DEFAULT_ID, PrivateKey, PublicKey
from anchor.gm.known_answers import self_test

__all__ = [
    "DEFAULT_ID",
    "PrivateKey",
    "PublicKey",
    "hmac_sm3",
    "self_test",
    "sm3",
    "sm4_gcm_decrypt",
    "sm4_gcm_encrypt",
]
