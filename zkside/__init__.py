"""zkside: one ZooKeeper session per host, shared by every local process over gRPC."""

__version__ = "0.1.0.dev0"
