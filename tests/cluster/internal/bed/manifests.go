package bed

import (
	"fmt"
	"strings"

	"heddle.test/cluster/internal/addr"
	"heddle.test/cluster/internal/programs"
)

// manifests is what every bed holds from the start: cluster DNS and the allocator's rights.
func manifests(plan addr.Plan) string {
	var families, addresses []string
	for _, ip := range plan.DNS() {
		families = append(families, map[bool]string{true: "IPv4", false: "IPv6"}[ip.Is4()])
		addresses = append(addresses, fmt.Sprintf("%q", ip))
	}
	policy := "SingleStack"
	if len(addresses) == 2 {
		policy = "RequireDualStack"
	}
	return strings.NewReplacer(
		"@IMAGE", programs.DNSImage,
		"@FAMILIES", strings.Join(families, ", "),
		"@ADDRESSES", strings.Join(addresses, ", "),
		"@FIRST", addresses[0],
		"@POLICY", policy,
	).Replace(base)
}

const base = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: coredns, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "system:coredns"}
rules:
- {apiGroups: [""], resources: [endpoints, services, pods, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "system:coredns"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "system:coredns"}
subjects: [{kind: ServiceAccount, name: coredns, namespace: kube-system}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: coredns, namespace: kube-system}
data:
  Corefile: |
    .:53 {
      errors
      ready
      health
      kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
      }
      cache 5
    }
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: coredns, namespace: kube-system}
spec:
  replicas: 1
  selector: {matchLabels: {k8s-app: kube-dns}}
  template:
    metadata: {labels: {k8s-app: kube-dns}}
    spec:
      serviceAccountName: coredns
      priorityClassName: system-cluster-critical
      dnsPolicy: Default
      tolerations: [{operator: Exists, effect: NoSchedule}]
      containers:
      - name: coredns
        image: @IMAGE
        imagePullPolicy: IfNotPresent
        args: ["-conf", "/etc/coredns/Corefile"]
        ports: [{name: dns, containerPort: 53, protocol: UDP}, {name: dns-tcp, containerPort: 53, protocol: TCP}]
        readinessProbe: {httpGet: {path: /ready, port: 8181}, periodSeconds: 1}
        volumeMounts: [{name: config, mountPath: /etc/coredns}]
      volumes: [{name: config, configMap: {name: coredns}}]
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  clusterIP: @FIRST
  clusterIPs: [@ADDRESSES]
  ipFamilies: [@FAMILIES]
  ipFamilyPolicy: @POLICY
  selector: {k8s-app: kube-dns}
  ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: "bed:load-balancer"}
rules:
- {apiGroups: [""], resources: [services], verbs: [get, list, watch]}
- {apiGroups: [""], resources: [services/status], verbs: [patch]}
- {apiGroups: [""], resources: [events], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: "bed:load-balancer"}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: "bed:load-balancer"}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: "bed:load-balancer"}]
`
