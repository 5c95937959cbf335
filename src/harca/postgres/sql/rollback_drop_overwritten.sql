-- Versions of a run that a later one overwrote and that nothing takes the place of, or nothing
-- but what that one had loaded itself: they must not come back with it.
DELETE FROM superseded s
USING harca_rollback p
LEFT JOIN superseded ours ON ours.superseded_id = p.before
WHERE p.place = 'overwritten' AND s.superseded_id = p.superseded_id AND (
    p.before IS NULL
    OR ours.row_run_id = s.run_id
        AND ours.row_updated_at = (SELECT started_at FROM load_runs r WHERE r.run_id = s.run_id)
)
