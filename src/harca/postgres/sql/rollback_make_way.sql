-- A date that stays the same is one that was not given, to the trigger; and two rows whose keys
-- somebody has exchanged stand in each other's way.
UPDATE vector_embeddings v
SET
    store_key = NULL,
    updated_at = CASE
        WHEN v.updated_at = '-infinity' THEN 'infinity' ELSE '-infinity'::timestamptz
    END
FROM harca_rollback p JOIN superseded s ON s.superseded_id = p.before
WHERE p.place = 'row' AND v.id = p.row_id AND (
    v.updated_at IS NOT DISTINCT FROM s.row_updated_at
    OR (v.store, v.store_key) IS DISTINCT FROM (s.store, s.store_key)
)
