"""The node's own keys: where they lie, what protects them, and how they are replaced.

The hierarchy, each key sealed by the one above it (SM4-GCM):

    passphrase (scrypt or PBKDF2-SM3) or hardware key (PKCS#11)
    └── protection key            keys/protection.json
        ├── kek.key               key-encryption key: wraps the data key of each patient (``bridge.storage.keyring``)
        ├── sign.key encrypt.key  the SM2 keys that the ledger knows this institution by
        ├── index.key resource-id.key pseudonym-*.key    keyed functions
        └── tls.key …             keys of the other services

Without protection (provider "file") the key files hold the keys themselves, mode 0600.
"""
