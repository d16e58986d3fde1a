"""Programs run and counted: verdicts, pass@k, the table, the submission."""
