"""The only package that knows PostgreSQL's drivers."""
