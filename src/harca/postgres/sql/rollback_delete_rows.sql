-- Rows that were not there before the run.
DELETE FROM vector_embeddings v
USING harca_rollback p
WHERE p.place = 'row' AND p.before IS NULL AND v.id = p.row_id
