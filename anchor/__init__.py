"""Evidence and consensus: national cryptography, Merkle logs, the ledger's state machine and its engines.

This package sees bytes, hashes and keys only; it knows neither Flask nor FHIR.
"""
