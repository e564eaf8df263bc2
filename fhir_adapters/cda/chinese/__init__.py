"""Chinese shared documents (WS/T 500): what their data elements mean."""
