// Command server offers Echo as an xDS server: it serves once its Listener has come. Prints JSON lines: which server this
// is, and then each change of its serving mode.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/xds"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func main() {
	name := flag.String("name", "", "the name with which it answers")
	listen := flag.String("listen", "", "IP:PORT")
	flag.Parse()

	say := json.NewEncoder(os.Stdout).Encode
	say(map[string]string{"client": "grpc-go-server", "version": grpc.Version})

	mode := xds.ServingModeCallback(func(_ net.Addr, args xds.ServingModeChangeArgs) {
		say(map[string]bool{"serving": args.Mode == connectivity.ServingModeServing})
	})
	server, err := xds.NewGRPCServer(grpc.Creds(insecure.NewCredentials()), mode)
	if err != nil {
		log.Fatal(err)
	}
	// CallRequest is empty, and CallReply's first field is a string: as in these well-known types.
	call := func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		if err := decode(&emptypb.Empty{}); err != nil {
			return nil, err
		}
		return wrapperspb.String(*name), nil
	}
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "portolan.chaos.v1.Echo",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Call", Handler: call}},
	}, struct{}{})
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(server.Serve(listener))
}
