-- The batches of some runs in up to so many steps of equal time, since their run began; the
-- last batch of a step says when it ended.
WITH spans AS (
    SELECT
        r.run_id, r.attempt,
        CASE r.attempt WHEN 1 THEN r.started_at ELSE min(b.committed_at) END AS began,
        extract(epoch FROM max(b.committed_at)
            - CASE r.attempt WHEN 1 THEN r.started_at ELSE min(b.committed_at) END) AS seconds
    FROM load_runs r JOIN load_batches b USING (run_id, attempt)
    WHERE r.run_id = ANY (%(runs)s)
    GROUP BY r.run_id
),
timed AS (
    SELECT
        s.run_id, s.seconds, b.read, extract(epoch FROM b.committed_at - s.began) AS since
    FROM spans s JOIN load_batches b USING (run_id, attempt)
)
SELECT run_id, max(since)::float AS until_s, sum(read)::bigint AS read
FROM timed
GROUP BY run_id, least(floor(since / nullif(seconds, 0) * %(steps)s), %(steps)s - 1)
ORDER BY run_id, until_s
