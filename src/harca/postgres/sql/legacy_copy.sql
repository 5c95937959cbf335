-- Brings the rows of some pages over, and counts them. A row that somebody is changing is
-- waited for; one that a trigger has brought over meanwhile is left as that made it.
WITH judged AS MATERIALIZED (
    SELECT
        t.id::text AS key, {content} AS content, e.embedding, {metadata} AS metadata,
        {created_at} AS created_at, {updated_at} AS updated_at,
        j.reason, j.differs,
        CASE WHEN j.reason IS NOT NULL OR j.differs
            THEN convert_to(to_jsonb(t)::text, 'UTF8') END AS payload
    FROM {table} t
    CROSS JOIN LATERAL (SELECT {embedding} AS embedding OFFSET 0) e
    CROSS JOIN LATERAL (
        SELECT coalesce({reason}, {repeated}) AS reason, {differs} AS differs OFFSET 0
    ) j
    WHERE {which}
    FOR KEY SHARE OF t
),
loaded AS (
    INSERT INTO vector_embeddings (
        content, embedding, metadata, model_id, created_at, updated_at, source, store,
        store_key, run_id
    )
    SELECT
        content, embedding, metadata, {model_id}, created_at, updated_at, {store},
        {store}, key, {run_id}
    FROM judged WHERE reason IS NULL
    ON CONFLICT (store, store_key) DO NOTHING
    RETURNING 1
),
rejected AS (
    INSERT INTO rejections (run_id, attempt, origin, reason, detail, payload)
    SELECT
        {run_id}, {attempt}, {store} || '/' || key, reason,
        'the row stays in the kept table', payload
    FROM judged WHERE reason IS NOT NULL
    UNION ALL
    SELECT
        {run_id}, {attempt}, {store} || '/' || key, 'jsonb-differs',
        'the row is loaded with its vector; its jsonb says otherwise', payload
    FROM judged WHERE reason IS NULL AND differs
    RETURNING reason
)
SELECT
    (SELECT count(*) FROM judged) AS read,
    (SELECT count(*) FROM loaded) AS loaded,
    (SELECT count(*) FROM rejected WHERE reason <> 'jsonb-differs') AS rejected,
    (SELECT jsonb_object_agg(reason, n) FROM (
        SELECT reason, count(*) AS n FROM rejected GROUP BY reason) r) AS reasons
