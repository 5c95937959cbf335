-- Drops what attempts that were interrupted had noted.
DELETE FROM load_batches WHERE run_id = %(run_id)s AND attempt < %(attempt)s
