-- What differs, record by record. Both sides are multisets of digests within the buckets
-- that differ; what is left on a side after taking the other's away is then paired by key.
WITH rows_and_losers AS (
    SELECT
        coalesce(v.store_key, '') AS store_key, v.model_id, v.content, v.metadata, {created_at} AS created_at,
        v.embedding, {row_digest} AS digest
    FROM vector_embeddings v
    LEFT JOIN load_runs r USING (run_id)
    WHERE v.store = %(store)s AND NOT {outlived}
    UNION ALL
    SELECT
        s.store_key, s.model_id, s.content, s.metadata, s.created_at, s.embedding, {loser_digest}
    FROM superseded s
    WHERE s.run_id = %(run_id)s AND s.kind <> 'overwritten'
        AND s.attempt = (SELECT attempt FROM load_runs WHERE run_id = %(run_id)s)
    UNION ALL
    SELECT
        n.store_key, n.model_id, n.content, n.metadata, n.created_at, n.embedding, n.digest
    FROM harca_refused n
),
found AS (
    SELECT *, row_number() OVER (PARTITION BY digest) AS copy FROM rows_and_losers
    WHERE get_byte(digest, 0) = ANY (%(buckets)s)
),
expected AS (
    SELECT *, row_number() OVER (PARTITION BY digest) AS copy FROM harca_expected
),
missing AS (
    SELECT e.*, row_number() OVER (PARTITION BY e.store_key ORDER BY e.digest) AS nth
    FROM expected e LEFT JOIN found f ON f.digest = e.digest AND f.copy = e.copy
    WHERE f.digest IS NULL
),
extra AS (
    SELECT f.*, row_number() OVER (PARTITION BY f.store_key ORDER BY f.digest) AS nth
    FROM found f LEFT JOIN expected e ON e.digest = f.digest AND e.copy = f.copy
    WHERE e.digest IS NULL
)
SELECT
    coalesce(m.store_key, x.store_key) AS store_key,
    m.origin,
    m.store_key IS NULL AS is_extra,
    x.store_key IS NULL AS is_missing,
    m.model_id IS DISTINCT FROM x.model_id AS model_id,
    m.content IS DISTINCT FROM x.content AS content,
    m.metadata AS metadata_expected,
    x.metadata AS metadata_found,
    m.created_at IS DISTINCT FROM x.created_at AS created_at,
    vector_send(m.embedding) IS DISTINCT FROM vector_send(x.embedding) AS embedding
FROM missing m FULL JOIN extra x ON x.store_key = m.store_key AND x.nth = m.nth
ORDER BY 1
