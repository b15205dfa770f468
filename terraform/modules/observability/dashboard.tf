# One page: what the sweep sees of the whole fleet, what workers tell of themselves,
# and AWS's part. A line a minute of each worker makes Sum over 60 s the fleet's.

locals {
  # A graph is a title and lines: [namespace, metric, dimension, value …, {options}].
  fleet = ["Fleet", var.state.name]
  graphs = [
    {
      title = "Sessions"
      lines = [for m in ["SessionsWanted", "SessionsOwned", "SessionsOnline", "SessionsOwnerless", "SessionsUnowned"] : concat(["Holdfast", m], local.fleet, [{ stat = "Maximum", period = local.sweep }])]
    },
    {
      title = "Workers"
      lines = concat(
        [for m in ["WorkersAlive", "WorkersDraining", "WorkersStale"] : concat(["Holdfast", m], local.fleet, [{ stat = "Maximum", period = local.sweep }])],
        [concat(["Holdfast", "WorkerStarts"], local.fleet, [{ stat = "Sum", period = 300 }])],
      )
    },
    {
      title = "Load: sessions a worker, share of the capacity"
      lines = [
        concat(["Holdfast", "SessionsPerWorker"], local.fleet, [{ stat = "Maximum", period = local.sweep }]),
        concat(["Holdfast", "CapacityUsed"], local.fleet, [{ stat = "Maximum", period = local.sweep, yAxis = "right" }]),
      ]
    },
    {
      title = "Sessions by state, as workers have them"
      lines = [for m in ["StateOnline", "StateConnecting", "StateReconnecting", "StatePairing", "StateConflict", "StateBanned", "StateFailed"] : concat(["Holdfast", m], local.fleet, [{ stat = "Sum", period = 60 }])]
    },
    {
      title = "Disconnects by cause"
      lines = [for m in [
        "Disconnects", "DisconnectsConnectionLost", "DisconnectsNetwork", "DisconnectsTimedOut", "DisconnectsServerError", "DisconnectsUnavailable",
        "DisconnectsInboundStalled", "DisconnectsReplaced", "DisconnectsLoggedOut", "DisconnectsTemporaryBan", "DisconnectsMoved",
      ] : concat(["Holdfast", m], local.fleet, [{ stat = "Sum", period = 300 }])]
    },
    {
      title = "Trouble"
      lines = [for m in ["ReconnectExhausted", "Outages", "FencedWrites", "TrustLost", "WorkersDeclaredDead", "SessionRestarts", "Undecryptable"] : concat(["Holdfast", m], local.fleet, [{ stat = "Sum", period = 300 }])]
    },
    {
      title = "Messages"
      lines = [for m in ["MessagesReceived", "MessagesSent", "MessagesFailed"] : concat(["Holdfast", m], local.fleet, [{ stat = "Sum", period = 60 }])]
    },
    {
      title = "Seconds until a message is acknowledged, a commit done, a session back"
      lines = [for m in ["AckDelay", "CommitDuration", "ReconnectDuration", "TakeoverDuration"] : concat(["Holdfast", m], local.fleet, [{ stat = "p99", period = 300 }])]
    },
    {
      title = "Webhooks"
      lines = [for m in ["WebhookDeliveries", "WebhookFailures", "WebhookRefused", "QueuesFilling"] : concat(["Holdfast", m], local.fleet, [{ stat = "Sum", period = 300 }])]
    },
    {
      title = "Lease trust, seconds: the least of all workers"
      lines = [concat(["Holdfast", "LeaseTrust"], local.fleet, [{ stat = "Minimum", period = 60 }])]
    },
    {
      title = "Store: errors, repeats"
      lines = [for m in ["StoreErrors", "StoreThrottles", "StoreConflicts"] : concat(["Holdfast", m], local.fleet, [{ stat = "Sum", period = 300 }])]
    },
    {
      title = "DynamoDB: units used a minute"
      lines = [for p in setproduct(["ConsumedReadCapacityUnits", "ConsumedWriteCapacityUnits"], local.tables) : ["AWS/DynamoDB", p[0], "TableName", p[1], { stat = "Sum", period = 60 }]]
    },
    {
      title = "Worker: CPU and memory, percent"
      lines = [for m in ["CPUUtilization", "MemoryUtilization"] : ["AWS/ECS", m, "ClusterName", var.worker.cluster_name, "ServiceName", var.worker.service_name, { stat = "Maximum", period = 60 }]]
    },
    {
      title = "Admin side"
      lines = concat(
        [for m in ["Invocations", "Errors", "Throttles"] : ["AWS/Lambda", m, "FunctionName", var.control.function_name, { stat = "Sum", period = 60 }]],
        [for m in ["4xx", "5xx"] : ["AWS/ApiGateway", m, "ApiId", var.control.api_id, { stat = "Sum", period = 60 }]],
        [["AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", var.control.dead_letter_queue_name, { stat = "Maximum", period = 300 }]],
      )
    },
  ]
}

resource "aws_cloudwatch_dashboard" "fleet" {
  dashboard_name = "${var.name}-holdfast"
  dashboard_body = jsonencode({
    widgets = concat(
      [{
        type = "alarm", x = 0, y = 0, width = 24, height = 4
        properties = {
          title  = "Alarms"
          alarms = [for alarm in aws_cloudwatch_metric_alarm.this : alarm.arn]
        }
      }],
      [for i, graph in local.graphs : {
        type = "metric", x = 8 * (i % 3), y = 4 + 6 * floor(i / 3), width = 8, height = 6
        properties = {
          title   = graph.title
          region  = local.region
          view    = "timeSeries"
          metrics = graph.lines
        }
      }],
      # By worker and free of metrics: what a look costs is the reading of the log.
      [{
        type = "log", x = 16, y = 4 + 6 * floor(length(local.graphs) / 3), width = 8, height = 6
        properties = {
          title  = "Each worker"
          region = local.region
          view   = "table"
          query  = "SOURCE '${var.worker.log_group_name}' | filter ispresent(Worker) and ispresent(Owned) | stats latest(Owned), latest(StateOnline), min(LeaseTrust), sum(Disconnects), sum(MessagesReceived), latest(Version) by Worker"
        }
      }],
    )
  })
}
