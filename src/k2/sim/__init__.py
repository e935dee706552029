"""The three exchanges on loopback."""
