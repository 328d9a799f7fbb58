"""Measurements, each beside its peer in the same run.

    run           the command: `python -m perf.run [--only NAME …] [--quick]`
    result        one result, its target, and how often it was repeated; pure
    report        results as a table for a terminal and for docs/performance.md
    world         what the measurements share: folders, servers, tables that are loaded once
    servers       processes that say when they are ready
    postgres      the peer of the ingests            stub, bare     servers that are peers
    data          rows, made by numpy from a fixed seed
    cold_aggregate, stream_rows, bulk_ingest, start_up, statements     the measurements

Only loopback is used, and everything that is written lies in one temporary folder, which is removed at the end.
"""
