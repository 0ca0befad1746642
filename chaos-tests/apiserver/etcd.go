package main

import (
	"context"
	"fmt"
	"net/url"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/storage/wal"
)

// Starts etcd with one member, quick to elect itself and small on disk.
func startEtcd(o options) (*embed.Etcd, string, error) {
	l, port, err := listen(0)
	if err != nil {
		return nil, "", err
	}
	l.Close()
	client := url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port)}
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:0"}

	// Two segments are allocated at once; the default of 64 MB each is for servers that live for years.
	wal.SegmentSizeBytes = 4 << 20
	config := embed.NewConfig()
	config.Dir = o.path("etcd")
	config.LogLevel, config.LogOutputs = "error", []string{"stderr"}
	config.UnsafeNoFsync = !o.fsync
	config.TickMs, config.ElectionMs = 10, 100
	config.WatchProgressNotifyInterval = 5 * time.Second
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	etcd, err := embed.StartEtcd(config)
	if err != nil {
		return nil, "", err
	}
	<-etcd.Server.ReadyNotify()
	return etcd, client.String(), nil
}

func compact(ctx context.Context, etcd *embed.Etcd) (int64, error) {
	client := v3client.New(etcd.Server)
	now, err := client.Get(ctx, "any")
	if err != nil {
		return 0, err
	}
	_, err = client.Compact(ctx, now.Header.Revision, clientv3.WithCompactPhysical())
	return now.Header.Revision, err
}
