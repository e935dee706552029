"""Reading back: snapshots, what differs between them, and rows for those who rebuild something."""
