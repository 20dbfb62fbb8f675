package balancer

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net/netip"
	"strings"
	"time"

	"heddle.test/cluster/internal/api"
)

// Class is the loadBalancerClass served beside Services that name none.
const Class = "bed.test/load-balancer"

const (
	// Between attempts while the API server is not there.
	retryAfter = 500 * time.Millisecond
	// The server ends a watch after this; everything is listed again then.
	watchSeconds = 300
)

type object struct {
	Metadata struct{ Namespace, Name, UID, ResourceVersion string }
	Spec     struct {
		Type              string
		LoadBalancerClass *string
		LoadBalancerIP    string
		IPFamilies        []string
	}
	Status struct {
		LoadBalancer struct {
			Ingress []struct{ IP string }
		}
	}
}

// Serve allocates until the context ends.
func Serve(ctx context.Context, client *api.Client, ranges []netip.Prefix) error {
	for ctx.Err() == nil {
		if err := round(ctx, client, ranges); err != nil {
			log.Print(err)
			select {
			case <-ctx.Done():
			case <-time.After(retryAfter):
			}
		}
	}
	return ctx.Err()
}

// round lists, settles, and settles again whenever a Service changes, until the watch ends.
func round(ctx context.Context, client *api.Client, ranges []netip.Prefix) error {
	var list struct {
		Metadata struct{ ResourceVersion string }
		Items    []object
	}
	if err := client.Get("/api/v1/services", &list); err != nil {
		return err
	}
	known := map[string]object{}
	for _, item := range list.Items {
		known[key(item)] = item
	}
	told := map[string]string{}
	settle(client, ranges, known, told)
	path := fmt.Sprintf("/api/v1/services?watch=1&resourceVersion=%s&timeoutSeconds=%d", list.Metadata.ResourceVersion, watchSeconds)
	return client.Watch(ctx, path, func(raw json.RawMessage) error {
		var event struct {
			Type   string
			Object object
		}
		if err := json.Unmarshal(raw, &event); err != nil {
			return err
		}
		switch event.Type {
		case "ADDED", "MODIFIED":
			known[key(event.Object)] = event.Object
		case "DELETED":
			delete(known, key(event.Object))
			delete(told, key(event.Object))
		case "ERROR":
			return fmt.Errorf("the watch of services ended: %s", raw)
		}
		settle(client, ranges, known, told)
		return nil
	})
}

func settle(client *api.Client, ranges []netip.Prefix, known map[string]object, told map[string]string) {
	services := make([]Service, 0, len(known))
	for _, item := range known {
		services = append(services, read(item))
	}
	for _, change := range Choose(ranges, services) {
		if change.Problem != "" {
			if told[change.Key] != change.Problem {
				told[change.Key] = change.Problem
				log.Printf("%s: %s", change.Key, change.Problem)
				complain(client, known[change.Key], change.Problem)
			}
			continue
		}
		ingress := []any{}
		for _, ip := range change.Addresses {
			ingress = append(ingress, map[string]string{"ip": ip, "ipMode": "VIP"})
		}
		namespace, name, _ := strings.Cut(change.Key, "/")
		path := "/api/v1/namespaces/" + namespace + "/services/" + name + "/status"
		patch := map[string]any{"status": map[string]any{"loadBalancer": map[string]any{"ingress": ingress}}}
		if err := client.MergePatch(path, patch); err != nil {
			log.Printf("%s: %v", change.Key, err)
			continue
		}
		// Noted at once: the next choice may come before the watch shows what was just written.
		item := known[change.Key]
		item.Status.LoadBalancer.Ingress = nil
		for _, ip := range change.Addresses {
			item.Status.LoadBalancer.Ingress = append(item.Status.LoadBalancer.Ingress, struct{ IP string }{ip})
		}
		known[change.Key] = item
		log.Printf("%s: %v", change.Key, change.Addresses)
	}
}

// complain tells the owner of a Service in the place they look: its events.
func complain(client *api.Client, service object, problem string) {
	now := time.Now().UTC().Format(time.RFC3339)
	err := client.Create("/api/v1/namespaces/"+service.Metadata.Namespace+"/events", map[string]any{
		"metadata": map[string]string{"generateName": service.Metadata.Name + "-", "namespace": service.Metadata.Namespace},
		"involvedObject": map[string]string{"apiVersion": "v1", "kind": "Service", "namespace": service.Metadata.Namespace,
			"name": service.Metadata.Name, "uid": service.Metadata.UID},
		"type": "Warning", "reason": "NoAddress", "message": problem, "count": 1,
		"firstTimestamp": now, "lastTimestamp": now, "source": map[string]string{"component": "bed-load-balancer"},
	})
	if err != nil {
		log.Printf("event of %s: %v", key(service), err)
	}
}

func read(item object) Service {
	ours := item.Spec.LoadBalancerClass == nil || *item.Spec.LoadBalancerClass == Class
	service := Service{
		Key:      key(item),
		Wants:    item.Spec.Type == "LoadBalancer" && ours,
		Families: item.Spec.IPFamilies,
	}
	if item.Spec.LoadBalancerIP != "" {
		service.Requested = strings.Split(item.Spec.LoadBalancerIP, ",")
	}
	if ours {
		for _, ingress := range item.Status.LoadBalancer.Ingress {
			service.Has = append(service.Has, ingress.IP)
		}
	}
	return service
}

func key(item object) string { return item.Metadata.Namespace + "/" + item.Metadata.Name }
