"""Background work: each kind chooses (pure), does, installs.  Knows no SQL and no users."""
