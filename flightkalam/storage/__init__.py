"""Bytes on disk: the key-value store and the files.  Never learns who is asking or what the bytes mean."""
