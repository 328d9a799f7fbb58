"""One table out of two tiers: the only way to read or write rows.  Knows no SQL and no users."""
