package worker

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/holdfast-wa/holdfast/state"
	"github.com/holdfast-wa/holdfast/worker/deliver"
	"github.com/holdfast-wa/holdfast/worker/lease"
	"github.com/holdfast-wa/holdfast/worker/session"
)

// Metrics are a worker's, in a registry of their own.
type Metrics struct {
	Registry *prometheus.Registry

	sessions     *prometheus.GaugeVec
	disconnects  *prometheus.CounterVec
	reconnect    prometheus.Histogram
	received     prometheus.Counter
	sent         *prometheus.CounterVec
	undecrypted  prometheus.Counter
	deliveries   *prometheus.CounterVec
	storeErrors  *prometheus.CounterVec
	outages      prometheus.Counter
	exhausted    prometheus.Counter
	commits      *prometheus.CounterVec
	commitTime   prometheus.Histogram
	fencedWrites prometheus.Counter
	ackDelay     prometheus.Histogram
	takeover     prometheus.Histogram
	trust        prometheus.Gauge
	alive        prometheus.Gauge
	deaths       prometheus.Counter
	fences       prometheus.Counter
	handed       *prometheus.CounterVec
	starts       prometheus.Counter
	restarts     prometheus.Counter
	filling      prometheus.Counter
	retries      *prometheus.CounterVec

	mu     sync.Mutex
	states map[string]state.State
}

// NewMetrics makes them.
func NewMetrics() *Metrics {
	r := prometheus.NewRegistry()
	m := &Metrics{
		Registry: r, states: make(map[string]state.State),
		sessions: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "holdfast_sessions",
			Help: "Sessions of this worker by state."}, []string{"state"}),
		disconnects: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "holdfast_disconnects_total",
			Help: "Connections that ended, by cause."}, []string{"cause"}),
		reconnect: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "holdfast_reconnect_duration_seconds",
			Help: "From the loss of a connection to the next login.", Buckets: prometheus.ExponentialBuckets(0.25, 2, 14)}),
		received: prometheus.NewCounter(prometheus.CounterOpts{Name: "holdfast_messages_received_total",
			Help: "Messages received, durable and acknowledged."}),
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "holdfast_messages_sent_total",
			Help: "Messages sent, by result: ok or failed."}, []string{"result"}),
		undecrypted: prometheus.NewCounter(prometheus.CounterOpts{Name: "holdfast_messages_undecryptable_total",
			Help: "Messages that could not be decrypted."}),
		deliveries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "holdfast_webhook_deliveries_total",
			Help: "Turns of deliveries, by sink and result: delivered, refused, failed."}, []string{"sink", "result"}),
		storeErrors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "holdfast_store_errors_total",
			Help: "Store operations that failed, by operation."}, []string{"operation"}),
		outages: prometheus.NewCounter(prometheus.CounterOpts{Name: "holdfast_outages_total",
			Help: "Outages: many sessions failing at once."}),
		exhausted: prometheus.NewCounter(prometheus.CounterOpts{Name: "holdfast_reconnect_exhausted_total",
			Help: "Sessions that used up their attempts."}),
		commits: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "holdfast_commits_total",
			Help: "Commits to the store, by result: ok, conflict, fenced, failed."}, []string{"result"}),
		commitTime: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "holdfast_commit_duration_seconds",
			Help: "Duration of commits to the store.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15)}),
		fencedWrites: prometheus.NewCounter(prometheus.CounterOpts{Name: "holdfast_fenced_writes_total",
			Help: "Writes that the store refused because the session has another owner."}),
	}
	m.ackDelay = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "holdfast_ack_delay_seconds",
		Help: "From the handling of a received message to its commit, behind which its acknowledgement leaves.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15)})
	m.takeover = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "holdfast_takeover_duration_seconds",
		Help: "From the first sight of a dead worker's session to the claim.", Buckets: prometheus.ExponentialBuckets(0.01, 2, 14)})
	m.trust = prometheus.NewGauge(prometheus.GaugeOpts{Name: "holdfast_lease_trust_seconds",
		Help: "What was left of this worker's trust when its last heartbeat was sent; at 0 it closes all its connections."})
	m.alive = prometheus.NewGauge(prometheus.GaugeOpts{Name: "holdfast_workers_alive",
		Help: "Workers of the fleet that are alive, as this one sees it."})
	m.deaths = prometheus.NewCounter(prometheus.CounterOpts{Name: "holdfast_workers_declared_dead_total",
		Help: "Workers that this one has declared dead."})
	m.fences = prometheus.NewCounter(prometheus.CounterOpts{Name: "holdfast_trust_lost_total",
		Help: "Times that this worker's trust was over and it closed all its connections."})
	m.handed = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "holdfast_sessions_given_total",
		Help: "Sessions given away, by how: handed_over to another worker, released to nobody."}, []string{"how"})
	m.starts = prometheus.NewCounter(prometheus.CounterOpts{Name: "holdfast_starts_total",
		Help: "1: this process has started. Added up, how often workers have."})
	m.restarts = prometheus.NewCounter(prometheus.CounterOpts{Name: "holdfast_session_restarts_total",
		Help: "Sessions that could not go on in this process and were begun anew."})
	m.filling = prometheus.NewCounter(prometheus.CounterOpts{Name: "holdfast_queues_filling_total",
		Help: "Times that 90 % of a session's queue of undelivered events was used."})
	m.retries = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "holdfast_store_retries_total",
		Help: "Requests that the store had to repeat, by reason: throttled, conflict of transactions, other."}, []string{"reason"})
	m.starts.Inc()
	r.MustRegister(m.starts, m.restarts, m.filling, m.retries, m.takeover, m.trust, m.alive, m.deaths, m.fences, m.handed, m.ackDelay, m.sessions, m.disconnects, m.reconnect, m.received, m.sent, m.undecrypted, m.deliveries,
		m.storeErrors, m.outages, m.exhausted, m.commits, m.commitTime, m.fencedWrites)
	for _, s := range state.States() {
		m.sessions.WithLabelValues(string(s))
	}
	for _, c := range state.Causes() {
		m.disconnects.WithLabelValues(string(c))
	}
	for _, reason := range []string{"throttled", "conflict", "other"} {
		m.retries.WithLabelValues(reason)
	}
	return m
}

// Leases tells of what the keeper does.
func (m *Metrics) Leases() lease.Observer {
	return lease.Observer{
		Died: func(string) { m.deaths.Inc() },
		Taken: func(_ string, dead bool, after time.Duration) {
			if dead {
				m.takeover.Observe(after.Seconds())
			}
		},
		Given: func(_, to string) {
			how := "handed_over"
			if to == "" {
				how = "released"
			}
			m.handed.WithLabelValues(how).Inc()
		},
		Fenced: func(int) { m.fences.Inc() },
		Trust:  func(left time.Duration) { m.trust.Set(left.Seconds()) },
		Alive:  func(members int) { m.alive.Set(float64(members)) },
	}
}

// Serving shows how many sessions the worker has, and how many it takes at most; 0:
// no bound.
func (m *Metrics) Serving(owned func() int, capacity int) {
	m.Registry.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "holdfast_sessions_owned",
			Help: "Sessions that this worker owns."}, func() float64 { return float64(owned()) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "holdfast_capacity",
			Help: "Sessions that this worker takes at most; 0: no bound."}, func() float64 { return float64(capacity) }))
}

// Retried counts a request that the store had to repeat.
func (m *Metrics) Retried(reason string) { m.retries.WithLabelValues(reason).Inc() }

// Scheduled shows how many messages wait to be sent.
func (m *Metrics) Scheduled(count func() int) {
	m.Registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "holdfast_outbox_due",
		Help: "Messages in the outbox that wait for their time."}, func() float64 { return float64(count()) }))
}

// Sessions tells of what the actors do.
func (m *Metrics) Sessions() session.Observer {
	return session.Observer{
		Disconnected: func(c state.Cause) { m.disconnects.WithLabelValues(string(c)).Inc() },
		Reconnected:  func(d time.Duration) { m.reconnect.Observe(d.Seconds()) },
		State:        m.stateOf,
		Sent: func(ok bool) {
			result := "failed"
			if ok {
				result = "ok"
			}
			m.sent.WithLabelValues(result).Inc()
		},
	}
}

// stateOf moves a session from one gauge to another.
func (m *Metrics) stateOf(name string, now state.State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if was, ok := m.states[name]; ok {
		if was == now {
			return
		}
		m.sessions.WithLabelValues(string(was)).Dec()
	}
	m.states[name] = now
	m.sessions.WithLabelValues(string(now)).Inc()
}

func (m *Metrics) forget(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if was, ok := m.states[name]; ok {
		m.sessions.WithLabelValues(string(was)).Dec()
		delete(m.states, name)
	}
}

// Delivered counts a turn of deliveries.
func (m *Metrics) Delivered(o deliver.Outcome) { m.deliveries.WithLabelValues(o.Sink, o.Result).Inc() }

func (m *Metrics) storeError(operation string) { m.storeErrors.WithLabelValues(operation).Inc() }

// Committed counts events that are durable.
func (m *Metrics) Committed(events []state.Event) {
	for _, e := range events {
		switch e.Type {
		case state.EventMessage:
			m.received.Inc()
			m.ackDelay.Observe(time.Since(e.Time).Seconds())
		case state.EventUndecrypted:
			m.undecrypted.Inc()
		case state.EventOutage:
			m.outages.Inc()
		case state.EventExhausted:
			m.exhausted.Inc()
		case state.EventQueueFilling:
			m.filling.Inc()
		}
	}
}
