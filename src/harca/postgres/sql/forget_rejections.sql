-- Drops rejections of interrupted attempts that the last one has noted again. One whose file
-- has gone meanwhile is the only copy.
DELETE FROM rejections e
WHERE e.run_id = %(run_id)s AND e.attempt < %(attempt)s AND EXISTS (
    SELECT FROM rejections l
    WHERE l.run_id = e.run_id AND l.attempt = %(attempt)s AND l.origin = e.origin
        AND l.payload IS NOT DISTINCT FROM e.payload
)
