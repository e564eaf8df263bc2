"""XML from outside, read behind limits: its character set (``text``) and a hardened tree (``tree``)."""
