-- Gives rows that stay the dates that they had.
UPDATE vector_embeddings v SET updated_at = p.changed_at
FROM harca_rollback p
WHERE p.place = 'row' AND p.change IS NOT NULL AND v.id = p.row_id
