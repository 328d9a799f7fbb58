"""What exists: namespaces, tables, columns and their ids, options and views; and the relations that show them.

    names, text    how a name is matched, checked, escaped and quoted; which columns a CHECK mentions
    options        the WITH options: one row each
    state          the immutable snapshot every statement reads, and the change from one to the next
    edits, alter   pure functions snapshot -> change: every rule about names, keys and columns
    catalog        the store's side: load at start, install and publish a change
    show           SHOW, DESCRIBE and SHOW CREATE
    providers      information_schema and system relations; other rooms register theirs

NOT here: who may see or do it (auth), what a row is (table, hot, cold), SQL text as a whole (sql).
"""
