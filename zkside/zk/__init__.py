"""Floor 3: ZooKeeper. One small port, two backends behind it, and the session that outlives connections."""
