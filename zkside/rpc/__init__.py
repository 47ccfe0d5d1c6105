"""Floor 6: gRPC. One thin servicer per .proto file."""

import os

# gRPC's core writes to standard error by itself, what a peer sent included (the debug text of a GOAWAY), and so could
# any peer forge lines of our log. Before the first import of grpc. Who asks for such lines gets them as events of the
# log (ops/foreign_output.py).
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
