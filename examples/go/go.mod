module example.org/held

go 1.23

require (
	google.golang.org/grpc v1.71.1
	google.golang.org/protobuf v1.36.6
)
