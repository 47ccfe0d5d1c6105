"""Floor 6: what an operator sees: metrics, health, a status page. Reads what the floors below offer as
frozen statistics; changes nothing."""
