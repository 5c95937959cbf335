-- What taking a run back comes upon, a line each. A row's history is its entries among the
-- overwritten, in the order of their numbers, and then the row itself; the run's versions go
-- out of it. "before" is the entry that takes a version's place, NULL where there was none;
-- "change" says what somebody else did to that version since.
WITH kept AS (
    SELECT superseded_id, row_id, store, store_key FROM superseded
    WHERE run_id = %(run_id)s AND kind = 'overwritten' AND row_id IS NOT NULL
),
latest AS (
    SELECT DISTINCT ON (row_id) * FROM kept ORDER BY row_id, superseded_id DESC
),
-- Rows that stand under the key that another has to get back. One of nobody gives way if it is
-- told to, one of the run does as it goes or gets another key back, one of another run does not.
others AS (
    SELECT
        l.row_id, o.id, o.updated_at, o.run_id IS NULL AS is_nobodys,
        o.run_id IS NULL
        OR o.run_id = %(run_id)s
        AND (b.store, b.store_key) IS DISTINCT FROM (l.store, l.store_key) AS gives_way
    FROM latest l
    JOIN vector_embeddings o ON o.store = l.store AND o.store_key = l.store_key AND o.id <> l.row_id
    LEFT JOIN latest b ON b.row_id = o.id
)
-- Rows as the run left them, or as somebody changed them since.
SELECT
    'row' AS place, v.id AS row_id, NULL::bigint AS superseded_id, v.store_key,
    CASE WHEN coalesce(o.gives_way, true) THEN l.superseded_id END AS before,
    CASE
        WHEN v.updated_at IS DISTINCT FROM %(started_at)s OR v.store IS DISTINCT FROM %(store)s
        THEN 'edited'
    END AS change,
    v.updated_at AS changed_at, NULL::bigint AS overwritten_by,
    CASE WHEN o.is_nobodys THEN o.id END AS in_its_place
FROM vector_embeddings v
LEFT JOIN latest l ON l.row_id = v.id
LEFT JOIN others o ON o.row_id = v.id
WHERE v.run_id = %(run_id)s
UNION ALL
-- What a later run has overwritten: a change to it is kept there.
(
    SELECT DISTINCT ON (s.superseded_id)
        'overwritten', s.row_id, s.superseded_id, s.store_key, k.superseded_id,
        CASE WHEN s.row_updated_at IS DISTINCT FROM %(started_at)s THEN 'edited' END,
        s.row_updated_at, s.run_id, NULL::integer
    FROM superseded s
    JOIN load_runs r ON r.run_id = s.run_id AND r.status <> 'rolled back'
    LEFT JOIN kept k ON k.row_id = s.row_id AND k.superseded_id < s.superseded_id
    WHERE s.row_run_id = %(run_id)s AND s.kind = 'overwritten' AND s.row_id IS NOT NULL
    ORDER BY s.superseded_id, k.superseded_id DESC
)
UNION ALL
-- What the run had overwritten and somebody has deleted since, and perhaps put in anew. Where
-- a run has loaded the key again, that is what counts.
(
    SELECT DISTINCT ON (l.store_key)
        'gone', l.row_id, NULL::bigint, l.store_key, l.superseded_id,
        CASE WHEN o.is_nobodys THEN 'replaced' ELSE 'deleted' END,
        CASE WHEN o.is_nobodys THEN o.updated_at END, NULL::bigint,
        CASE WHEN o.is_nobodys THEN o.id END
    FROM latest l
    LEFT JOIN others o ON o.row_id = l.row_id
    WHERE coalesce(o.gives_way, true)
        AND NOT EXISTS (SELECT FROM vector_embeddings v WHERE v.id = l.row_id)
        AND NOT EXISTS (
            SELECT FROM superseded s JOIN load_runs r USING (run_id)
            WHERE s.row_id = l.row_id AND s.superseded_id > l.superseded_id
                AND s.kind = 'overwritten' AND r.status <> 'rolled back'
        )
    ORDER BY l.store_key, l.superseded_id DESC
)
