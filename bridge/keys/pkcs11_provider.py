"""The protection key under a key that never leaves a hardware module, by PKCS#11 (extra ``hsm``: python-pkcs11).

The module holds an AES-256 key (CKM_AES_GCM): what every PKCS#11 module offers, SoftHSM included. National modules
offer SM4 under vendor-specific mechanism numbers, which are not standardised; the key that it protects, and everything
below, is SM4 in any case. A session is opened to seal or open once, and closed again.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bridge.errors import SettingsError
from bridge.keys.provider import AAD, NONCE_BYTES, Sealed

TAG_BITS = 128
KEY_BITS = 256


class Pkcs11Provider:
    """A key in a token, found by its label."""

    name = "pkcs11"

    def __init__(self, module: str, token: str, label: str, pin: str) -> None:
        self._module, self._token, self._label, self._pin = module, token, label, pin

    def create_key(self) -> bool:
        """Make the key in the token, sensitive and not extractable; False when there is one of that label already."""
        import pkcs11

        with self._session(writable=True) as session:
            if self._find(session) is not None:
                return False
            attributes = {
                pkcs11.Attribute.SENSITIVE: True,
                pkcs11.Attribute.EXTRACTABLE: False,
                pkcs11.Attribute.ENCRYPT: True,
                pkcs11.Attribute.DECRYPT: True,
            }
            session.generate_key(pkcs11.KeyType.AES, KEY_BITS, label=self._label, store=True, template=attributes)
            return True

    def seal(self, secret: bytes) -> Sealed:
        """Encrypt inside the module."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        with self._key() as (key, parameters):
            sealed = key.encrypt(secret, mechanism=parameters[0], mechanism_param=parameters[1](nonce))
        return {
            "provider": self.name,
            "token": self._token,
            "label": self._label,
            "mechanism": "AES_GCM",
            "nonce": nonce.hex(),
            "sealed": bytes(sealed).hex(),
        }

    def open(self, sealed: Mapping[str, Any]) -> bytes:
        """Decrypt inside the module."""
        try:
            nonce, content = bytes.fromhex(sealed["nonce"]), bytes.fromhex(sealed["sealed"])
            if sealed["mechanism"] != "AES_GCM" or len(nonce) != NONCE_BYTES:
                raise ValueError("another mechanism")
        except (KeyError, TypeError, ValueError) as error:
            raise SettingsError("keys/protection.json is not of its form / 密钥保护文件格式错误") from error
        with self._key() as (key, parameters):
            return bytes(key.decrypt(content, mechanism=parameters[0], mechanism_param=parameters[1](nonce)))

    @contextmanager
    def _key(self) -> Iterator[tuple[Any, tuple[Any, Any]]]:
        """Give the key and its mechanism with a maker of parameters."""
        from pkcs11 import GCMParams, Mechanism

        with self._session() as session:
            key = self._find(session)
            if key is None:
                raise SettingsError(f"the token has no key labelled {self._label} / 令牌中没有该密钥")
            yield key, (Mechanism.AES_GCM, lambda nonce: GCMParams(nonce, AAD, TAG_BITS))

    def _find(self, session: Any) -> Any:
        import pkcs11

        wanted = {
            pkcs11.Attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
            pkcs11.Attribute.KEY_TYPE: pkcs11.KeyType.AES,
            pkcs11.Attribute.LABEL: self._label,
        }
        found = list(session.get_objects(wanted))
        if len(found) > 1:
            raise SettingsError(f"the token has several keys labelled {self._label} / 令牌中存在同名密钥")
        return found[0] if found else None

    @contextmanager
    def _session(self, *, writable: bool = False) -> Iterator[Any]:
        """Open a session with the PIN; every failure of the module is one ``SettingsError`` by its kind."""
        try:
            import pkcs11
        except ImportError as error:
            raise SettingsError("PKCS#11 needs the extra hsm: pip install 'yiqiao[hsm]' / 缺少 hsm 组件") from error
        try:
            token = pkcs11.lib(self._module).get_token(token_label=self._token)
            with token.open(user_pin=self._pin, rw=writable) as session:
                yield session
        except (pkcs11.PKCS11Error, RuntimeError, OSError) as error:
            raise SettingsError(
                f"the hardware key store does not do what is asked ({type(error).__name__}); check keys.pkcs11_module, "
                "keys.pkcs11_token, the PIN and the device / 密码设备访问失败"
            ) from error
