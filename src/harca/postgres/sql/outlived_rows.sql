-- Fingerprint of rows of earlier runs that stay instead of a record of the latest one.
WITH entries AS (
    SELECT sha256({row_digest} || {label_hash}) AS digest
    FROM vector_embeddings v
    LEFT JOIN load_runs r USING (run_id)
    WHERE v.store = %(store)s AND {outlived}
)
SELECT
    get_byte(digest, 0) AS bucket,
    count(*) AS count,
    sum(('x' || encode(substr(digest, 2, 8), 'hex'))::bit(64)::bigint) AS total,
    false AS is_label
FROM entries
GROUP BY bucket
