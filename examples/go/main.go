// Reads and watches a node, holds a lock and stands for election, until the node says "stop".
//
//	go run . unix:/run/zkside/zkside.sock my-name
//
// The node is /clients/config, the lock /clients/lock, the election /clients/election.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	zksidev1 "example.org/held/gen/zkside/v1"
)

type updates interface {
	Recv() (*zksidev1.HoldUpdate, error)
}

// follow tells when the hold is held, and when it is not any more. Work that relies on it stops at JEOPARDY, or when
// the lease in the update has passed, and hands the fencing token to what it protects. Ends with ctx, as the stream does.
func follow(ctx context.Context, what string, stream updates, held chan<- *zksidev1.Hold) {
	for {
		update, err := stream.Recv()
		if errors.Is(err, io.EOF) || ctx.Err() != nil {
			return
		}
		if err != nil {
			log.Fatalf("%s: %v", what, err)
		}
		switch update.State {
		case zksidev1.HoldState_HOLD_STATE_HELD:
			fmt.Println(what, update.Hold.FencingToken)
			held <- update.Hold
		case zksidev1.HoldState_HOLD_STATE_LOST:
			log.Fatalf("%s: lost, %s", what, update.Reason)
		}
	}
}

func main() {
	address, name := os.Args[1], os.Args[2]
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	ctx, letGo := context.WithCancel(context.Background())
	defer letGo()

	answer, err := zksidev1.NewNodeServiceClient(conn).Get(ctx, &zksidev1.GetRequest{Path: "/clients/config"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("read %s\n", answer.Node.Data)

	// A hold lives as long as its stream: cancel the context, or let the process die, and it is free.
	acquire, err := zksidev1.NewLockServiceClient(conn).Acquire(ctx, &zksidev1.AcquireRequest{
		Path: "/clients/lock", Mode: zksidev1.LockMode_LOCK_MODE_EXCLUSIVE, Owner: name,
	})
	if err != nil {
		log.Fatal(err)
	}
	locks := make(chan *zksidev1.Hold, 8)
	go follow(ctx, "lock", acquire, locks)
	lock := <-locks

	campaign, err := zksidev1.NewElectionServiceClient(conn).Campaign(ctx, &zksidev1.CampaignRequest{
		Path: "/clients/election", CandidateId: name,
	})
	if err != nil {
		log.Fatal(err)
	}
	leaderships := make(chan *zksidev1.Hold, 8)
	go follow(ctx, "leader", campaign, leaderships)
	<-leaderships

	watch, err := zksidev1.NewWatchServiceClient(conn).Watch(ctx, &zksidev1.WatchRequest{
		Targets: []*zksidev1.WatchTarget{{Path: "/clients/config", Scope: zksidev1.Scope_SCOPE_NODE, WithData: true}},
	})
	if err != nil {
		log.Fatal(err)
	}
	for {
		message, err := watch.Recv()
		if err != nil {
			log.Fatal(err)
		}
		nodes := message.GetSnapshot().GetNodes()
		for _, change := range message.GetChanges().GetChanges() {
			nodes = append(nodes, change.Node)
		}
		for _, node := range nodes {
			fmt.Printf("watch %s\n", node.GetData())
			if string(node.GetData()) == "stop" {
				_, err := zksidev1.NewHoldServiceClient(conn).Release(ctx, &zksidev1.ReleaseRequest{HoldId: lock.HoldId})
				if err != nil {
					log.Fatal(err)
				}
				fmt.Println("released")
				return
			}
		}
	}
}
