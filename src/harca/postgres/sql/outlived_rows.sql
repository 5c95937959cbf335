-- Digests of rows of earlier runs that stay instead of a record of the latest one.
SELECT sha256({row_digest} || {label_hash}) AS digest
FROM vector_embeddings v
LEFT JOIN load_runs r USING (run_id)
WHERE v.store = %(store)s AND {outlived}
