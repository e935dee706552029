"""What people touch: the HTTP API, the live stream and the page. It reads the store and the log, and writes neither."""
