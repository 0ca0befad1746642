// Command caller calls Echo over xDS at a steady rate, and prints what became of the calls as JSON lines.
//
// The first line says which client this is. Each later line counts what ended since the one before, by backend or by error.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	_ "google.golang.org/grpc/xds" // xds:/// targets
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	method     = "/portolan.chaos.v1.Echo/Call"
	printEvery = 100 * time.Millisecond
)

// counts is one line of the output.
type counts struct {
	Answered map[string]int `json:"answered"`
	Failed   map[string]int `json:"failed"`
}

func none() counts { return counts{map[string]int{}, map[string]int{}} }

// tally counts calls as they end.
type tally struct {
	sync.Mutex
	counts
}

func (t *tally) ended(backend string, err error) {
	t.Lock()
	defer t.Unlock()
	if err != nil {
		s := status.Convert(err)
		t.Failed[fmt.Sprintf("%v: %s", s.Code(), s.Message())]++
		return
	}
	t.Answered[backend]++
}

func (t *tally) take() counts {
	t.Lock()
	defer t.Unlock()
	taken := t.counts
	t.counts = none()
	return taken
}

func main() {
	target := flag.String("target", "", "an xDS name")
	rate := flag.Float64("rate", 0, "calls per second")
	timeout := flag.Float64("timeout", 0, "of a call, in seconds")
	flag.Parse()

	conn, err := grpc.NewClient(*target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	say := json.NewEncoder(os.Stdout).Encode
	say(map[string]string{"client": "grpc-go", "version": grpc.Version})

	tally := &tally{counts: none()}
	go func() {
		for range time.Tick(printEvery) {
			say(tally.take())
		}
	}()
	limit := time.Duration(*timeout * float64(time.Second))
	lane := false
	for range time.Tick(time.Duration(float64(time.Second) / *rate)) {
		// Every second call has the header, by which a route tells them.
		lane = !lane
		outgoing := context.Background()
		if lane {
			outgoing = metadata.AppendToOutgoingContext(outgoing, "lane", "blue")
		}
		go func() {
			ctx, cancel := context.WithTimeout(outgoing, limit)
			defer cancel()
			// CallRequest is empty, and CallReply's first field is a string: as in these well-known types.
			reply := &wrapperspb.StringValue{}
			err := conn.Invoke(ctx, method, &emptypb.Empty{}, reply)
			tally.ended(reply.GetValue(), err)
		}()
	}
}
