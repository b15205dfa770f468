package emf

// WorkerRows are a worker's metrics for CloudWatch, of those that /metrics has. The
// Sum over an interval is the fleet's figure, but for LeaseTrust, whose Minimum
// counts, and the durations. None of their names is one of the Lambda's.
func WorkerRows() []Row {
	webhook := func(result string) map[string]string {
		return map[string]string{"sink": "webhook", "result": result}
	}
	return []Row{
		// Always there, so that a graph has no holes and a worker that says nothing
		// is missed.
		{Name: "LeaseTrust", Unit: "Seconds", From: "holdfast_lease_trust_seconds", Always: true},
		{Name: "Owned", Unit: "Count", From: "holdfast_sessions_owned", Always: true},
		{Name: "Capacity", Unit: "Count", From: "holdfast_capacity"}, // 0: no bound
		{Name: "OutboxDue", Unit: "Count", From: "holdfast_outbox_due", Always: true},
		{Name: "StateOnline", Unit: "Count", From: "holdfast_sessions", Where: map[string]string{"state": "online"}, Always: true},
		{Name: "Disconnects", Unit: "Count", Kind: Count, From: "holdfast_disconnects_total", Always: true},
		{Name: "MessagesReceived", Unit: "Count", Kind: Count, From: "holdfast_messages_received_total", Always: true},
		{Name: "MessagesSent", Unit: "Count", Kind: Count, From: "holdfast_messages_sent_total", Where: map[string]string{"result": "ok"}, Always: true},
		{Name: "Commits", Unit: "Count", Kind: Count, From: "holdfast_commits_total", Where: map[string]string{"result": "ok"}, Always: true},
		{Name: "WebhookDeliveries", Unit: "Count", Kind: Count, From: "holdfast_webhook_deliveries_total", Where: webhook("delivered"), Always: true},
		{Name: "CommitDuration", Unit: "Seconds", Kind: Spread, From: "holdfast_commit_duration_seconds"},
		{Name: "AckDelay", Unit: "Seconds", Kind: Spread, From: "holdfast_ack_delay_seconds"},
		{Name: "ReconnectDuration", Unit: "Seconds", Kind: Spread, From: "holdfast_reconnect_duration_seconds"},
		{Name: "TakeoverDuration", Unit: "Seconds", Kind: Spread, From: "holdfast_takeover_duration_seconds"},

		// There when something is the matter: one for each other state and cause that
		// occurs, both of closed sets.
		{Name: "State", Unit: "Count", From: "holdfast_sessions", Each: "state"},
		{Name: "Disconnects", Unit: "Count", Kind: Count, From: "holdfast_disconnects_total", Each: "cause"},
		{Name: "ReconnectExhausted", Unit: "Count", Kind: Count, From: "holdfast_reconnect_exhausted_total"},
		{Name: "Outages", Unit: "Count", Kind: Count, From: "holdfast_outages_total"},
		{Name: "FencedWrites", Unit: "Count", Kind: Count, From: "holdfast_fenced_writes_total"},
		{Name: "TrustLost", Unit: "Count", Kind: Count, From: "holdfast_trust_lost_total"},
		{Name: "WorkersDeclaredDead", Unit: "Count", Kind: Count, From: "holdfast_workers_declared_dead_total"},
		{Name: "WorkerStarts", Unit: "Count", Kind: Count, From: "holdfast_starts_total"},
		{Name: "SessionRestarts", Unit: "Count", Kind: Count, From: "holdfast_session_restarts_total"},
		{Name: "StoreErrors", Unit: "Count", Kind: Count, From: "holdfast_store_errors_total"},
		{Name: "StoreThrottles", Unit: "Count", Kind: Count, From: "holdfast_store_retries_total", Where: map[string]string{"reason": "throttled"}},
		{Name: "StoreConflicts", Unit: "Count", Kind: Count, From: "holdfast_store_retries_total", Where: map[string]string{"reason": "conflict"}},
		{Name: "WebhookFailures", Unit: "Count", Kind: Count, From: "holdfast_webhook_deliveries_total", Where: webhook("failed")},
		{Name: "WebhookRefused", Unit: "Count", Kind: Count, From: "holdfast_webhook_deliveries_total", Where: webhook("refused")},
		{Name: "QueuesFilling", Unit: "Count", Kind: Count, From: "holdfast_queues_filling_total"},
		{Name: "Undecryptable", Unit: "Count", Kind: Count, From: "holdfast_messages_undecryptable_total"},
		{Name: "MessagesFailed", Unit: "Count", Kind: Count, From: "holdfast_messages_sent_total", Where: map[string]string{"result": "failed"}},
	}
}
