"""The consortium engine: the ledger replicated among institutions by CometBFT (v0.38, ABCI 2.0)."""
