"""Certificates: the consortium's own authority for TLS between nodes, and SM2 certificates over members' ledger keys.

Who is a member, and with which keys, is the ledger's word alone. Certificates are what other software needs in order
to see it: TLS libraries, reverse proxies, tools for national cryptography. So they are issued from the ledger and end
with it.
"""
