"""Backups of everything that cannot be made anew: the databases, the bytes of files, and the accounts.

JetStream is not in a backup: message-store fills it again from PostgreSQL.
"""
