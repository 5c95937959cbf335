-- Rows of a run that somebody has changed since, those among them that a later run has
-- overwritten: it keeps the change.
SELECT store_key FROM vector_embeddings
WHERE run_id = %(run_id)s AND store = %(store)s AND updated_at IS DISTINCT FROM %(started_at)s
UNION ALL
SELECT s.store_key FROM superseded s JOIN load_runs l USING (run_id)
WHERE s.row_run_id = %(run_id)s AND s.kind = 'overwritten' AND l.status <> 'rolled back'
    AND s.row_updated_at IS DISTINCT FROM %(started_at)s
ORDER BY 1
