-- What stood in a row before a version that stays does not come back any more.
UPDATE superseded s SET row_id = NULL
FROM harca_rollback p, load_runs r
WHERE p.change IS NOT NULL AND s.row_id = p.row_id AND s.kind = 'overwritten'
    AND (p.superseded_id IS NULL OR s.superseded_id < p.superseded_id)
    AND r.run_id = s.run_id AND r.run_id <> %(run_id)s AND r.status <> 'rolled back'
