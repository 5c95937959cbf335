-- What differs, record by record. Both sides are multisets of digests within the buckets
-- that differ; what is left on a side after taking the other's away is then paired by key.
-- Rows that are equal but for what is not digested, their source and run, come last.
WITH rows_and_losers AS (
    SELECT
        coalesce(v.store_key, '') AS store_key, v.model_id, v.content, v.metadata, {created_at} AS created_at,
        v.embedding, {row_digest} AS digest, 'row ' || v.id || ' of the table' AS place,
        v.source,
        -- What the row should have by its run, if that was told; else what the store says.
        r.options ->> 'source' AS told_source,
        r.store IS DISTINCT FROM v.store OR r.status = 'rolled back' AS is_astray,
        v.updated_at IS DISTINCT FROM r.started_at AS is_edited,
        get_byte({label_hash}, 0) %% 16 AS label_bucket
    FROM vector_embeddings v
    LEFT JOIN load_runs r USING (run_id)
    WHERE v.store = %(store)s AND NOT {outlived}
    UNION ALL
    SELECT
        s.store_key, s.model_id, s.content, s.metadata, s.created_at, s.embedding, {loser_digest},
        'superseded ' || s.superseded_id, NULL, NULL, NULL, NULL, NULL
    FROM superseded s
    WHERE s.run_id = %(run_id)s AND s.kind <> 'overwritten'
        AND s.attempt = (SELECT attempt FROM load_runs WHERE run_id = %(run_id)s)
    UNION ALL
    SELECT
        n.store_key, n.model_id, n.content, n.metadata, n.created_at, n.embedding, n.digest,
        'rejections: ' || n.origin, NULL, NULL, NULL, NULL, NULL
    FROM harca_refused n
),
latest AS (SELECT options ->> 'source' AS told_source FROM load_runs WHERE run_id = %(run_id)s),
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
),
relabelled AS (
    SELECT
        f.store_key, f.place, bool_and(
            f.source IS DISTINCT FROM
            coalesce(f.told_source, CASE WHEN l.told_source IS NULL THEN e.source ELSE f.source END)
        ) AS source,
        f.is_astray, f.is_edited
    FROM found f JOIN expected e USING (digest) CROSS JOIN latest l
    WHERE f.label_bucket = ANY (%(labels)s)
    GROUP BY f.store_key, f.place, f.is_astray, f.is_edited
)
SELECT
    coalesce(m.store_key, x.store_key) AS store_key,
    coalesce(m.origin, x.place) AS origin,
    m.store_key IS NULL AS is_extra,
    x.store_key IS NULL AS is_missing,
    m.model_id IS DISTINCT FROM x.model_id AS model_id,
    m.content IS DISTINCT FROM x.content AS content,
    m.metadata::text IS DISTINCT FROM x.metadata::text AS metadata,
    m.created_at IS DISTINCT FROM x.created_at AS created_at,
    vector_send(m.embedding) IS DISTINCT FROM vector_send(x.embedding) AS embedding,
    x.is_edited IS NOT NULL AND x.source IS DISTINCT FROM coalesce(
        x.told_source, CASE WHEN l.told_source IS NULL THEN m.source ELSE x.source END
    ) AS source,
    coalesce(x.is_astray, false) AS run_id,
    m.metadata AS metadata_expected,
    x.metadata AS metadata_found,
    CASE WHEN jsonb_typeof(x.metadata) = 'object' THEN ARRAY(
        SELECT key
        FROM jsonb_each(m.metadata) ours FULL JOIN jsonb_each(x.metadata) theirs USING (key)
        WHERE ours.value::text IS DISTINCT FROM theirs.value::text
        ORDER BY key
    ) END AS metadata_keys,
    get_byte(x.digest, 0) AS bucket
FROM missing m FULL JOIN extra x ON x.store_key = m.store_key AND x.nth = m.nth
CROSS JOIN latest l
UNION ALL
SELECT
    store_key, place, false, false, false, false, false, false, false, source,
    is_astray OR is_edited AND NOT source, NULL, NULL, NULL, NULL
FROM relabelled
WHERE source OR is_astray OR is_edited
ORDER BY 1
