"""What `harca report` tells of a database, as one page that needs nothing beside it."""
