-- The same for what a later run has overwritten: taken back, that run gives it back.
UPDATE superseded s SET row_run_id = NULL
FROM harca_rollback p
WHERE p.place = 'overwritten' AND p.change IS NOT NULL AND s.superseded_id = p.superseded_id
