"""Clinical statements of the body, one module per concern."""
