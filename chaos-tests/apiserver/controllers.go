package main

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/kubernetes/pkg/controller/endpointslice"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/namespace"
)

const (
	maxEndpointsPerSlice = 100
	workers              = 5
)

// Runs the controllers without which the objects that tests look at would not come and go: EndpointSlices from Pods,
// owned objects with their owners, and namespaces with what is in them.
func startControllers(ctx context.Context, loopback *rest.Config) error {
	client, err := kubernetes.NewForConfig(loopback)
	if err != nil {
		return err
	}
	objects, err := metadata.NewForConfig(loopback)
	if err != nil {
		return err
	}
	typed := informers.NewSharedInformerFactory(client, 0)
	partial := metadatainformer.NewSharedInformerFactory(objects, 0)

	slices := endpointslice.NewController(ctx,
		typed.Core().V1().Pods(), typed.Core().V1().Services(), typed.Core().V1().Nodes(),
		typed.Discovery().V1().EndpointSlices(), maxEndpointsPerSlice, client, 0)
	namespaces := namespace.NewNamespaceController(ctx, client, objects,
		client.Discovery().ServerPreferredNamespacedResources,
		typed.Core().V1().Namespaces(), 5*time.Minute, v1.FinalizerKubernetes)
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	started := make(chan struct{})
	garbage, err := garbagecollector.NewGarbageCollector(ctx, client, objects, mapper,
		garbagecollector.DefaultIgnoredResources(), informerfactory.NewInformerFactory(typed, partial), started)
	if err != nil {
		return err
	}

	go slices.Run(ctx, workers)
	go namespaces.Run(ctx, workers)
	go garbage.Run(ctx, workers, 30*time.Second)
	go garbage.Sync(ctx, client.Discovery(), 5*time.Second) // learns of new CRDs
	typed.Start(ctx.Done())
	partial.Start(ctx.Done())
	close(started)
	return nil
}
