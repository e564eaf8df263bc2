"""What the node does: ingest, anchoring, exchange, reading. No web framework here."""
