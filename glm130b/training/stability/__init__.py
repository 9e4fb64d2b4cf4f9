"""Judges every step before its update: what is a spike or a fault, and what the config wants done about it."""
