"""Grading: each submission is checked in a separate process, and every outcome gives a complete report.

``parent`` starts the process, watches its time and reports for it if it dies; ``child`` runs in that process and calls
`check_conv`; ``folder`` grades all submissions of a folder.
"""
