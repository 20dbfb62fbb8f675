// Package retrybudget holds a test that the Gateway API suite of v1.7.0 lacks: what an XBackendTrafficPolicy's
// retryConstraint (GEP-3388) does to the traffic of a mesh. It is written against the suite's own types, base
// manifests and client, and against what the API says and nothing that only Heddle does, so that it could be
// offered there as it is.
package retrybudget

import (
	"context"
	"embed"
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	xv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"
	"sigs.k8s.io/gateway-api/conformance/utils/echo"
	"sigs.k8s.io/gateway-api/conformance/utils/http"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/conformance/utils/tlog"
	"sigs.k8s.io/gateway-api/pkg/features"
)

// Manifests are the test's own.
//
//go:embed tests/mesh/*.yaml
var Manifests embed.FS

// Tests of this package, in the suite's form.
var Tests = []suite.ConformanceTest{MeshHTTPRouteRetryBudget}

// batch is how many requests the client sends at once.
const batch = 20

// interval is that of every budget and minimum rate of the manifest. A batch of requests must fit into it.
const interval = 10 * time.Second

// MeshHTTPRouteRetryBudget tells by the answer whether a retry was allowed: the backend always fails with 500,
// so a request whose retry was allowed ends as the backend's 500, and one that the budget refused as 503.
var MeshHTTPRouteRetryBudget = suite.ConformanceTest{
	ShortName:   "MeshHTTPRouteRetryBudget",
	Description: "A BackendTrafficPolicy bounds the retries of all HTTPRoutes to its Service",
	Manifests:   []string{"tests/mesh/httproute-retry-budget.yaml"},
	Features: []features.FeatureName{
		features.SupportMesh,
		features.SupportHTTPRoute,
	},
	Test: func(t *testing.T, s *suite.ConformanceTestSuite) {
		client := echo.ConnectToApp(t, s, echo.MeshAppEchoV1)
		for _, path := range []string{"/share-one", "/share-two", "/spare", "/floor"} {
			client.MakeRequestAndExpectEventuallyConsistentResponse(t, http.ExpectedResponse{
				Request:   http.Request{Path: path, Host: "echo"},
				Response:  http.Response{StatusCode: 200},
				Namespace: suite.MeshNamespace,
			}, s.TimeoutConfig)
		}
		for _, name := range []string{"retry-budget-share", "retry-budget-spare", "retry-budget-floor"} {
			policyMustBeAccepted(t, s, types.NamespacedName{Namespace: suite.MeshNamespace, Name: name})
		}
		// What the checks above sent must have left every window.
		forget(t)

		send := func(t *testing.T, path, code string, count int) (allowed, refused int) {
			t.Helper()
			began := time.Now()
			var responses []echo.Response
			// The client sends a batch at once; a small one does not run into its time limit on a slow machine.
			for left := count; left > 0; left -= min(left, batch) {
				some, err := client.RequestBatch(t, http.ExpectedResponse{
					Request:   http.Request{Path: fmt.Sprintf("%s?codes=%s", path, code), Host: "echo"},
					Namespace: suite.MeshNamespace,
				}, min(left, batch))
				if err != nil {
					tlog.Fatalf(t, "%d requests to %s: %v", count, path, err)
				}
				responses = append(responses, some...)
			}
			if took := time.Since(began); took > interval*3/4 {
				tlog.Fatalf(t, "%d requests took %v: nothing can be said about a window of %v", count, took, interval)
			}
			others := map[string]int{}
			for _, response := range responses {
				switch response.Code {
				case code:
					allowed++
				case "503":
					refused++
				default:
					others[response.Code]++
				}
			}
			if len(others) > 0 {
				tlog.Errorf(t, "%s answered %v besides %s and 503", path, others, code)
			}
			tlog.Logf(t, "%d requests to %s that end as %s: %d did, %d were 503", count, path, code, allowed, refused)
			return allowed, refused
		}

		t.Run("Retries beyond the percentage of the requests are answered with 503", func(t *testing.T) {
			// 20 percent of 100 requests, or of 100 requests and their retries; fewer if requests end before others begin.
			if allowed, _ := send(t, "/share-one", "500", 100); allowed < 10 || allowed > 27 {
				tlog.Errorf(t, "%d of 100 requests were retried, want about 20 percent", allowed)
			}
		})

		t.Run("All HTTPRoutes to the Service share the budget", func(t *testing.T) {
			if allowed, _ := send(t, "/share-two", "500", 10); allowed > 4 {
				tlog.Errorf(t, "%d of 10 requests of another HTTPRoute were retried, although the Service's budget was spent", allowed)
			}
		})

		t.Run("Each Service has a budget of its own, earned by requests that need no retry", func(t *testing.T) {
			send(t, "/spare", "200", 60)
			if allowed, _ := send(t, "/spare", "500", 10); allowed < 10 {
				tlog.Errorf(t, "%d of 10 requests were retried, want all: they are less than 20 percent of 70", allowed)
			}
		})

		t.Run("Requests count for the interval and no longer", func(t *testing.T) {
			forget(t)
			// If the 60 still counted, some 7 more could be retried.
			if allowed, _ := send(t, "/spare", "500", 10); allowed < 1 || allowed > 4 {
				tlog.Errorf(t, "%d of 10 requests were retried, want a share of these 10 alone", allowed)
			}
		})

		t.Run("The minimum rate allows retries that the percentage does not", func(t *testing.T) {
			for range 2 {
				if allowed, _ := send(t, "/floor", "500", 20); allowed != 5 {
					tlog.Errorf(t, "%d of 20 requests were retried, want the 5 of the minimum rate", allowed)
				}
				forget(t)
			}
		})
	},
}

// forget waits until nothing that was sent so far is within any window.
func forget(t *testing.T) {
	t.Helper()
	tlog.Logf(t, "Waiting for the windows of %v to pass", interval)
	time.Sleep(interval + interval/5)
}

func policyMustBeAccepted(t *testing.T, s *suite.ConformanceTestSuite, name types.NamespacedName) {
	t.Helper()
	last := "it has no ancestor in its status"
	err := wait.PollUntilContextTimeout(context.Background(), s.TimeoutConfig.DefaultPollInterval, s.TimeoutConfig.RouteMustHaveParents, true,
		func(ctx context.Context) (bool, error) {
			var policy xv1alpha1.XBackendTrafficPolicy
			if err := s.Client.Get(ctx, name, &policy); err != nil {
				last = err.Error()
				return false, nil
			}
			for _, ancestor := range policy.Status.Ancestors {
				accepted := meta.FindStatusCondition(ancestor.Conditions, string(gatewayv1.PolicyConditionAccepted))
				if accepted != nil && accepted.Status == "True" && accepted.ObservedGeneration == policy.Generation {
					return true, nil
				}
				last = fmt.Sprintf("its ancestor %s says %+v", ancestor.AncestorRef.Name, accepted)
			}
			return false, nil
		})
	if err != nil {
		tlog.Fatalf(t, "policy %s was not accepted in time: %s", name, last)
	}
}
