"""Floor 4: fan-out. One watch on the server for all local subscribers, and the caches that it keeps."""
