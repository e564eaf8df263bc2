"""Yiqiao's bridge: the middleware that a hospital runs beside its HIS; the only package that sees both others."""
