"""The way of a frame from an exchange's socket into the log, and of missing trades back from its REST side."""
