-- Rows that stay as somebody changed them: of no run from now on. The trigger takes a date that
-- stays the same for one that was not given, so it moves away first, and then back.
UPDATE vector_embeddings v
SET
    run_id = NULL,
    updated_at = CASE
        WHEN v.updated_at = '-infinity' THEN 'infinity' ELSE '-infinity'::timestamptz
    END
FROM harca_rollback p
WHERE p.place = 'row' AND p.change IS NOT NULL AND v.id = p.row_id
