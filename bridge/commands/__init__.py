"""The commands of ``yiqiao``, one module per area; ``bridge.cli`` loads a module when one of its commands is run."""
