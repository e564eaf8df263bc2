"""The HTTP surfaces, one blueprint each: FHIR, messages, exchange, ledger, metadata, operations.

A route reads the request, calls one service and renders; its permission stands on it (``bridge.auth.requires``).
"""
