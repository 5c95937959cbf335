-- What taking a run back comes upon, a line each. A row's history is its entries among the
-- overwritten, in the order of their numbers, and then the row itself; the run's versions go
-- out of it. "before" is the entry that takes a version's place, NULL where there was none;
-- "change" says what somebody else did to that version since.
--
-- Windows and groups instead of joins of one list with another: nothing is known of how long
-- the lists are, and a nested loop over two long ones would not end.
WITH history AS (
    SELECT
        s.superseded_id, s.run_id, s.row_id, s.row_run_id, s.row_updated_at, s.store, s.store_key,
        max(s.superseded_id) FILTER (WHERE s.run_id = %(run_id)s) OVER before AS ours_before,
        count(*) OVER after AS entries_after,
        count(*) FILTER (WHERE s.run_id = %(run_id)s) OVER after AS ours_after
    FROM superseded s JOIN load_runs r USING (run_id)
    WHERE s.kind = 'overwritten' AND s.row_id IS NOT NULL
        AND (r.status <> 'rolled back' OR s.run_id = %(run_id)s)
    WINDOW
        before AS (
            PARTITION BY s.row_id ORDER BY s.superseded_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ),
        after AS (
            PARTITION BY s.row_id ORDER BY s.superseded_id
            ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING
        )
),
latest AS (
    SELECT *, array_agg(row_id) OVER (PARTITION BY store, store_key) AS under_this_key
    FROM history WHERE run_id = %(run_id)s AND ours_after = 0
),
-- With the row that stands under the key which another has to get back. One of nobody makes way
-- if told to, one of the run does as it goes or gets another key, one of another run does not.
placed AS (
    SELECT
        l.*, v.id IS NULL AS is_gone, coalesce(v.run_id = %(run_id)s, false) AS is_ours,
        CASE WHEN o.run_id IS NULL THEN o.id END AS in_its_place,
        CASE WHEN o.run_id IS NULL THEN o.updated_at END AS changed_at,
        o.run_id IS NULL OR o.run_id = %(run_id)s AND o.id <> ALL (l.under_this_key) AS has_way
    FROM latest l
    LEFT JOIN vector_embeddings v ON v.id = l.row_id
    LEFT JOIN vector_embeddings o
        ON o.store = l.store AND o.store_key = l.store_key AND o.id <> l.row_id
)
-- Rows as the run left them, or as somebody changed them since.
SELECT
    'row' AS place, row_id, NULL::bigint AS superseded_id, max(store_key) AS store_key,
    max(before) AS before, max(change) AS change, max(changed_at) AS changed_at,
    NULL::bigint AS overwritten_by, max(in_its_place) AS in_its_place
FROM (
    SELECT
        id AS row_id, store_key, NULL::bigint AS before,
        CASE
            WHEN updated_at IS DISTINCT FROM %(started_at)s OR store IS DISTINCT FROM %(store)s
            THEN 'edited'
        END AS change,
        updated_at AS changed_at, NULL::integer AS in_its_place
    FROM vector_embeddings WHERE run_id = %(run_id)s
    UNION ALL
    SELECT row_id, NULL, superseded_id, NULL, NULL, in_its_place
    FROM placed WHERE is_ours AND has_way
) ours
GROUP BY row_id
UNION ALL
-- What a later run has overwritten: a change to it is kept there.
SELECT
    'overwritten', row_id, superseded_id, store_key, ours_before,
    CASE WHEN row_updated_at IS DISTINCT FROM %(started_at)s THEN 'edited' END,
    row_updated_at, run_id, NULL
FROM history WHERE row_run_id = %(run_id)s
UNION ALL
-- What the run had overwritten and somebody has deleted since, and perhaps put in anew. Where
-- a run has loaded the key again, that is what counts.
(
    SELECT DISTINCT ON (store_key)
        'gone', row_id, NULL::bigint, store_key, superseded_id,
        CASE WHEN in_its_place IS NULL THEN 'deleted' ELSE 'replaced' END,
        changed_at, NULL::bigint, in_its_place
    FROM placed WHERE is_gone AND has_way AND entries_after = 0
    ORDER BY store_key, superseded_id DESC
)
