"""Statement -> plan -> stream.

    text ── guard ──▶ Guarded ── bind ──▶ Bound ── scan ──▶ Planned ── engine ──▶ batches ── conform ──▶ client
            (may it run?)   (what does it read?)  (which batches?)     (rows)              (announced types)

`functions` says what may be called, `predicates` what a table reference needs at most, `relation` how a scan plan
reads as a SQL relation, `compute` what an engine must be able to do, and `duckdb_engine` is the one engine there is.

NOT here: who is asking, which tables exist (the caller's `resolve` answers), how rows are stored.
"""
