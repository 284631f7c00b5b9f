"""What the report says: the finding, sentences, tables, their wording, and the tables of the published study."""
