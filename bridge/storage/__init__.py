"""What the node keeps: one module per store, each with its own tables; no web framework here."""
