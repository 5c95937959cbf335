-- Rows that somebody has put in the place of one that comes back.
DELETE FROM vector_embeddings v
USING harca_rollback p
WHERE p.before IS NOT NULL AND v.id = p.in_its_place
