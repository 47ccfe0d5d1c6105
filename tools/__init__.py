"""What builds, describes and cuts a release: run as `python -m tools.NAME`, through the Makefile's targets."""
