-- What a run overwrote is passed on to the later run that overwrote the same rows again.
UPDATE superseded later SET
    content = ours.content, embedding = ours.embedding, metadata = ours.metadata,
    model_id = ours.model_id, created_at = ours.created_at, source = ours.source,
    row_run_id = ours.row_run_id, row_updated_at = ours.row_updated_at
FROM superseded ours
WHERE later.row_run_id = %(run_id)s AND later.kind = 'overwritten'
    AND ours.run_id = %(run_id)s AND ours.kind = 'overwritten' AND ours.row_id = later.row_id
