// A real Kubernetes API server in one process, for tests: etcd, kube-apiserver, and the endpointslice, garbage-collector
// and namespace controllers. It listens on the loopback alone. There is no kubelet and no scheduler: a test patches a
// Pod's status, and real EndpointSlices follow.
//
// Once it serves, it prints one line: READY kubeconfig=FILE server=URL admin=URL.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"go.etcd.io/etcd/server/v3/embed"
	genericapiserver "k8s.io/apiserver/pkg/server"
)

// What a server is started with.
type options struct {
	dir   string   // etcd's data, keys and the kubeconfig; used again at a restart
	port  int      // of the API; 0: a free one
	fsync bool     // whether data outlives a crash of the machine, not of the process alone
	flags []string // more flags for kube-apiserver
}

func (o options) path(name string) string { return filepath.Join(o.dir, name) }

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	o := options{}
	flag.StringVar(&o.dir, "dir", "", "state directory; the same one at a restart (required)")
	flag.IntVar(&o.port, "port", 0, "port of the API (0: a free one); give the same one at a restart")
	flag.BoolVar(&o.fsync, "fsync", false, "let etcd sync each write to disk")
	tied := flag.Bool("exit-on-stdin-eof", false, "end when standard input does, so that no server outlives its test")
	flag.Parse()
	o.flags = flag.Args()
	if o.dir == "" {
		return fmt.Errorf("-dir is missing")
	}
	var err error
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return err
	}
	if *tied {
		go func() {
			io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
	}

	ctx := genericapiserver.SetupSignalContext()
	etcd, etcdURL, err := startEtcd(o)
	if err != nil {
		return fmt.Errorf("etcd: %w", err)
	}
	defer etcd.Close()
	server, err := startServer(ctx, o, etcdURL)
	if err != nil {
		return fmt.Errorf("kube-apiserver: %w", err)
	}
	if err := server.waitReady(ctx); err != nil {
		return err
	}
	if err := startControllers(ctx, server.loopback); err != nil {
		return fmt.Errorf("controllers: %w", err)
	}
	kubeconfig, err := server.writeKubeconfig(o)
	if err != nil {
		return err
	}
	admin, err := serveAdmin(ctx, etcd)
	if err != nil {
		return err
	}
	fmt.Printf("READY kubeconfig=%s server=%s admin=%s\n", kubeconfig, server.url(), admin)
	return <-server.done
}

// Listens on the loopback, and says at which port.
func listen(port int) (net.Listener, int, error) {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, 0, err
	}
	return l, l.Addr().(*net.TCPAddr).Port, nil
}

// A port of its own for what a test does to the server behind its back: POST /compact makes etcd forget every
// revision but the last.
func serveAdmin(ctx context.Context, etcd *embed.Etcd) (string, error) {
	l, port, err := listen(0)
	if err != nil {
		return "", err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /compact", func(w http.ResponseWriter, r *http.Request) {
		revision, err := compact(r.Context(), etcd)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(w, revision)
	})
	go http.Serve(l, mux)
	return fmt.Sprintf("http://127.0.0.1:%d", port), nil
}
