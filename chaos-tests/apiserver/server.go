package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/spf13/pflag"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	apioptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

// The token of the one user, who is in system:masters. The server is on the loopback and holds nothing of worth.
const adminToken = "admin-of-a-test"

type server struct {
	port     int
	loopback *rest.Config // the server's own way in
	done     chan error   // tells how it ended
}

func (s *server) url() string { return fmt.Sprintf("https://127.0.0.1:%d", s.port) }

func startServer(ctx context.Context, o options, etcdURL string) (*server, error) {
	saKey := o.path("service-accounts.key")
	if err := makeKey(saKey); err != nil {
		return nil, err
	}
	tokens := o.path("tokens.csv")
	if err := os.WriteFile(tokens, fmt.Appendf(nil, "%s,admin,admin,\"system:masters\"\n", adminToken), 0o600); err != nil {
		return nil, err
	}
	listener, port, err := listen(o.port)
	if err != nil {
		return nil, err
	}

	run := apioptions.NewServerRunOptions()
	flags := pflag.NewFlagSet("kube-apiserver", pflag.ContinueOnError)
	for _, set := range run.Flags().FlagSets {
		flags.AddFlagSet(set)
	}
	err = flags.Parse(append([]string{
		"--etcd-servers=" + etcdURL,
		"--cert-dir=" + o.path("certs"),
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		"--secure-port=" + strconv.Itoa(port),
		"--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112",
		"--token-auth-file=" + tokens,
		"--authorization-mode=RBAC",
		"--anonymous-auth=false",
		"--disable-admission-plugins=ServiceAccount", // there is no controller that makes the default accounts
		"--allow-privileged=true",
		"--service-account-issuer=https://apiserver.invalid",
		"--service-account-signing-key-file=" + saKey,
		"--service-account-key-file=" + saKey,
	}, o.flags...))
	if err != nil {
		return nil, err
	}
	run.SecureServing.Listener = listener
	if err := run.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return nil, err
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	if err := logsapi.ValidateAndApply(run.Logs, utilfeature.DefaultFeatureGate); err != nil {
		return nil, err
	}
	prepared, loopback, err := prepare(ctx, run)
	if err != nil {
		return nil, err
	}
	s := &server{port: port, loopback: loopback, done: make(chan error, 1)}
	go func() { s.done <- prepared(ctx) }()
	return s, nil
}

// Makes the server from its options: what runs it, and a configuration for clients inside of this process.
func prepare(ctx context.Context, run *apioptions.ServerRunOptions) (func(context.Context) error, *rest.Config, error) {
	completed, err := run.Complete(ctx)
	if err != nil {
		return nil, nil, err
	}
	if wrong := completed.Validate(); len(wrong) > 0 {
		return nil, nil, errors.Join(wrong...)
	}
	config, err := app.NewConfig(completed)
	if err != nil {
		return nil, nil, err
	}
	complete, err := config.Complete()
	if err != nil {
		return nil, nil, err
	}
	chain, err := app.CreateServerChain(complete)
	if err != nil {
		return nil, nil, err
	}
	prepared, err := chain.PrepareRun()
	if err != nil {
		return nil, nil, err
	}
	loopback := rest.CopyConfig(chain.GenericAPIServer.LoopbackClientConfig)
	loopback.QPS, loopback.Burst = -1, -1
	return prepared.Run, loopback, nil
}

// Waits until it answers that it is ready: the listener is open long before.
func (s *server) waitReady(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(s.loopback)
	if err != nil {
		return err
	}
	for {
		var code int
		client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).StatusCode(&code)
		if code == http.StatusOK {
			return nil
		}
		select {
		case err := <-s.done:
			return fmt.Errorf("kube-apiserver ended before it was ready: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Writes the admin's kubeconfig, whole or not at all.
func (s *server) writeKubeconfig(o options) (string, error) {
	ca, err := os.ReadFile(o.path("certs/apiserver.crt"))
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters:
- name: test
  cluster: {server: "%s", certificate-authority-data: %s}
users:
- name: admin
  user: {token: %s}
contexts:
- name: test
  context: {cluster: test, user: admin}
current-context: test
`, s.url(), base64.StdEncoding.EncodeToString(ca), adminToken)
	file := o.path("kubeconfig")
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		return "", err
	}
	return file, os.Rename(file+".new", file)
}

// Makes a private key, unless a server before us did: the tokens that it signed stay good.
func makeKey(file string) error {
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}
