"""Nouns that two rooms share: types, schemas, scopes, keys, predicates.  Pure; no I/O here."""
