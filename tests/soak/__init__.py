"""An hour of abuse beside a well-behaved client, which judges the daemon: `make soak`, docs/soak.md."""
