-- Two who each delete one of two rows with one id would not see each other.
        PERFORM pg_advisory_xact_lock(hashtextextended({store} || OLD.id::text, 0));
