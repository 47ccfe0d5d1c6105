"""What a hostile or thoughtless process of the same host does to the daemon: one module a kind, each bounded in its
rate and each ending by itself."""
