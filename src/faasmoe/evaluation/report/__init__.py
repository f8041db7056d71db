"""Results as people read them: tables, charts, and a page of both."""
