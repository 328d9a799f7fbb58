"""The hot tier: recent versions in a log in the key-value store, in memory as Arrow, with an index of their keys."""
