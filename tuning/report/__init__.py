"""What a search shows: the live table, the tables, the report and its plots."""
