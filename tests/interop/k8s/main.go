// K8saudit sends audit events to a webhook as a Kubernetes API server does: the
// events are made by the server's audit filters from requests, and leave through
// its buffered and webhook backends, configured by a kubeconfig file. Without
// options the backends have the server's defaults.
//
// Usage:
//
//	k8saudit -kubeconfig FILE [-requests N] [-object-bytes N] [-gap DURATION]
//		[-initial-backoff DURATION] [-buffer N] [-batch N] [-max-wait DURATION]
//		[-qps N] [-burst N] [-async=false]
//
// Each request gives two events, of the stages RequestReceived and
// ResponseComplete; one in ten is refused (403). -object-bytes adds a patch of
// about that size to each. It handles the requests one after the other, with
// -gap between them, shuts the backends down, which sends what is buffered, and
// prints one JSON object:
//
//	events     [auditID, stage] of each event that was handed to the backends
//	batches    for each batch, in the order of their ends: number of events, whether
//	           it was delivered, milliseconds from the first attempt to the end
//	overflowed events dropped because the buffer was full, by the server's metric
//	failed     events dropped because the webhook failed, by the server's metric
//
// What is dropped is written to standard error, as the server writes it to its log.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/request"
	utilwebhook "k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/apiserver/plugin/pkg/audit/buffered"
	"k8s.io/apiserver/plugin/pkg/audit/webhook"
	"k8s.io/component-base/metrics/legacyregistry"
)

type batch struct {
	Events    int   `json:"events"`
	Delivered bool  `json:"delivered"`
	TookMs    int64 `json:"took_ms"`
}

// watched is the webhook backend with a note of what became of each batch.
type watched struct {
	audit.Backend
	mu      sync.Mutex
	batches []batch
}

func (w *watched) ProcessEvents(events ...*auditinternal.Event) bool {
	start := time.Now()
	ok := w.Backend.ProcessEvents(events...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.batches = append(w.batches, batch{len(events), ok, time.Since(start).Milliseconds()})
	return ok
}

// sink notes which events the filters make and passes them on.
type sink struct {
	audit.Sink
	events [][2]string
}

func (s *sink) ProcessEvents(events ...*auditinternal.Event) bool {
	for _, event := range events {
		s.events = append(s.events, [2]string{string(event.AuditID), string(event.Stage)})
	}
	return s.Sink.ProcessEvents(events...)
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("k8saudit: ")
	kubeconfig := flag.String("kubeconfig", "", "`file` that names the webhook")
	requests := flag.Int("requests", 100, "`number` of requests")
	objectBytes := flag.Int("object-bytes", 0, "about this `size` of a patch in each request")
	gap := flag.Duration("gap", 0, "`time` between two requests")
	backoff := flag.Duration("initial-backoff", webhook.DefaultInitialBackoffDelay, "`time` before the first retry, about")
	config := buffered.BatchConfig{ThrottleEnable: true}
	flag.IntVar(&config.BufferSize, "buffer", 10_000, "`events` that are buffered")
	flag.IntVar(&config.MaxBatchSize, "batch", 400, "`events` in a batch, at most")
	flag.DurationVar(&config.MaxBatchWait, "max-wait", 30*time.Second, "`time` between two batches, at most")
	qps := flag.Float64("qps", 10, "`batches` a second")
	flag.IntVar(&config.ThrottleBurst, "burst", 15, "`batches` at once")
	flag.BoolVar(&config.AsyncDelegate, "async", true, "send batches beside each other")
	flag.Parse()
	if *kubeconfig == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	config.ThrottleQPS = float32(*qps)

	sender, err := webhook.NewBackend(
		*kubeconfig, auditv1.SchemeGroupVersion, utilwebhook.DefaultRetryBackoffWithInitialDelay(*backoff), nil)
	if err != nil {
		log.Fatal(err)
	}
	batches := &watched{Backend: sender}
	backend := buffered.NewBackend(batches, config)
	stop := make(chan struct{})
	if err := backend.Run(stop); err != nil {
		log.Fatal(err)
	}
	made := &sink{Sink: backend}
	server := apiServer(made, *objectBytes)
	for n := range *requests {
		server.ServeHTTP(httptest.NewRecorder(), newRequest(n))
		time.Sleep(*gap)
	}
	close(stop)
	backend.Shutdown()

	err = json.NewEncoder(os.Stdout).Encode(map[string]any{
		"events":     made.events,
		"batches":    batches.batches,
		"overflowed": dropped(buffered.PluginName),
		"failed":     dropped(webhook.PluginName),
	})
	if err != nil {
		log.Fatal(err)
	}
}

// apiServer is the part of an API server's chain of filters that audits.
func apiServer(to audit.Sink, objectBytes int) http.Handler {
	patch := []byte(fmt.Sprintf(`{"data":{"key":%q}}`, strings.Repeat("x", objectBytes)))
	handler := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if objectBytes > 0 {
			audit.LogRequestPatch(r.Context(), patch)
		}
		if r.Header.Get("Refuse") != "" {
			audit.AddAuditAnnotations(r.Context(), "authorization.k8s.io/decision", "forbid", "authorization.k8s.io/reason", "")
			w.WriteHeader(http.StatusForbidden)
			return
		}
		audit.AddAuditAnnotations(r.Context(), "authorization.k8s.io/decision", "allow",
			"authorization.k8s.io/reason", `RBAC: allowed by ClusterRoleBinding "cluster-admins"`)
		w.WriteHeader(http.StatusOK)
	}))
	rules := policy.NewPolicyRuleEvaluator(&auditinternal.Policy{Rules: []auditinternal.PolicyRule{{Level: auditinternal.LevelRequest}}})
	handler = filters.WithAudit(handler, to, rules, nil)
	handler = withUser(handler)
	handler = filters.WithRequestInfo(handler, &request.RequestInfoFactory{
		APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")})
	handler = filters.WithRequestReceivedTimestamp(handler)
	return filters.WithAuditInit(handler)
}

func withUser(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := &user.DefaultInfo{
			Name: "alice@corp.example", UID: "7f0e", Groups: []string{"admins", "system:authenticated"},
			Extra: map[string][]string{"authentication.kubernetes.io/credential-id": {"X509SHA256=5d1c"}}}
		handler.ServeHTTP(w, r.WithContext(request.WithUser(r.Context(), who)))
	})
}

func newRequest(n int) *http.Request {
	target := fmt.Sprintf("/api/v1/namespaces/shop/configmaps/config-%d", n)
	r := httptest.NewRequestWithContext(context.Background(), http.MethodPatch, target, nil)
	r.RemoteAddr = "198.51.100.7:4711"
	r.Header.Set("User-Agent", "kubectl/v1.37.2 (linux/amd64)")
	if n%10 == 9 {
		r.Header.Set("Refuse", "yes")
	}
	return r
}

// dropped is the server's own count of events that a plugin lost.
func dropped(plugin string) int {
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		log.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "apiserver_audit_error_total" {
			continue
		}
		for _, metric := range family.GetMetric() {
			if metric.GetLabel()[0].GetValue() == plugin {
				return int(metric.GetCounter().GetValue())
			}
		}
	}
	return 0
}
