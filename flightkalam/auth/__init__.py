"""Who is calling, and may they.

    credentials ──> accounts.verify ─┐
                                     ├──> Identity ──> impersonate ──> Identity ──> authorise.require
    bearer ───────> tokens.verify ───┘    (actor = subject)            (AS USER)

`identity` holds the nouns, `accounts` names and roles, `passwords` hashes, `tokens` what a login hands out,
`impersonate` the only way to an identity whose actor and subject differ, and `authorise` the one table of rights.  Rows
are kept apart elsewhere: by the scope that the session derives from an identity's subject.

Not here: SQL, tables' contents, the wire.
"""
