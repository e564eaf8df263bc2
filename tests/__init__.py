"""Scripts, fixtures and checks of the project."""
