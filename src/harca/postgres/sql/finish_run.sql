-- Sums the batches of the last attempt up.
UPDATE load_runs r
SET
    status = 'loaded', read = b.read, loaded = b.loaded, unchanged = b.unchanged,
    superseded = b.superseded, rejected = b.rejected, notes = %(notes)s,
    finished_at = clock_timestamp()
FROM (
    SELECT
        coalesce(sum(read), 0) AS read, coalesce(sum(loaded), 0) AS loaded,
        coalesce(sum(unchanged), 0) AS unchanged, coalesce(sum(superseded), 0) AS superseded,
        coalesce(sum(rejected), 0) AS rejected
    FROM load_batches
    WHERE run_id = %(run_id)s AND attempt = %(attempt)s
) b
WHERE r.run_id = %(run_id)s
