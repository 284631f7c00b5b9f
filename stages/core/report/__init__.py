"""The sentences, tables and page of the report, and the tables of the published study."""
