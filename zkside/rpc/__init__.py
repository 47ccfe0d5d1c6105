"""Floor 6: gRPC. One thin servicer per .proto file."""
