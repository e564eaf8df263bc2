"""Engines that order the ledger's transactions, behind one protocol (``anchor.chain.client``)."""
