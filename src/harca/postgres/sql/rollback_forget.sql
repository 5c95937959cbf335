-- Nor what runs that were taken back themselves had overwritten of the run.
DELETE FROM superseded s
WHERE s.row_run_id = %(run_id)s AND s.kind = 'overwritten'
