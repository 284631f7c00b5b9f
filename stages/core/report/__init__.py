"""The report's sentences, tables and page, and the tables of the published study."""
