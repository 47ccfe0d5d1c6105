"""Floor 5: recipes. Linear flows over the session: writes that resolve lost replies, and holds."""
