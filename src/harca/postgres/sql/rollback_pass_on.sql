-- What a run overwrote is passed on to the later run that overwrote the same rows again. Where
-- the two took turns it can be a change of that run's own rows: then it is somebody's, not its.
UPDATE superseded later SET
    content = ours.content, embedding = ours.embedding, metadata = ours.metadata,
    model_id = ours.model_id, created_at = ours.created_at, source = ours.source,
    row_run_id = nullif(ours.row_run_id, later.run_id), row_updated_at = ours.row_updated_at
FROM harca_rollback p
JOIN superseded ours ON ours.superseded_id = p.before
WHERE p.place = 'overwritten' AND later.superseded_id = p.superseded_id
