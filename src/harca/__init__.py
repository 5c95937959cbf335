"""Move a file-based vector store into PostgreSQL + pgvector, prove it, and be able to go back."""

__version__ = "0.1.0"
