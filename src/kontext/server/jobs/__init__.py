"""Jobs in the database: tables, the queue, fair order, quotas, and JSON views."""
