"""The ledger's rules, one module per contract, each a set of pure functions that reject by default."""
