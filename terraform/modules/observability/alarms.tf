# The alarms, as data. What each means is in alarms.json, which also names the
# runbooks: infra/guide/runbooks/NAME.md. terraform/alarmtest evaluates each of them
# on what the program writes, well and broken.
#
# Numbers of the whole fleet come from the sweep, once in sweep_minutes, because dead
# workers say nothing; those of workers from their own lines, once a minute. Metrics
# that speak of trouble are left out while they are zero, so a missing point is a
# good one; those that are always there are missing when something is dead, so there
# a missing point is a bad one. Lines may come late or twice: no alarm hangs on one
# late line, and sums that must be exact are not made.

locals {
  sweep = 60 * var.sweep_minutes

  # A metric of Holdfast, in the log of the workers or of the function.
  ours = { for name in [
    "CapacityUsed", "DisconnectsLoggedOut", "FencedWrites", "LeaseTrust", "Outages", "PairingsStale", "QueuesFilling", "ReconnectExhausted",
    "SessionsUnowned", "StateBanned", "StateConflict", "StateFailed", "StoreErrors", "SweepDuration", "TakeoverDuration", "TrustLost",
    "Undecryptable", "WebhookFailures", "WebhookRefused", "WorkersAlive", "WorkersDeclaredDead", "WorkersKilled",
    "WorkersPanicked", "WorkersStopped",
    ] : name => { namespace = "Holdfast", name = name, dimensions = { Fleet = var.state.name } }
  }

  function = { FunctionName = var.control.function_name }
  service  = { ClusterName = var.worker.cluster_name, ServiceName = var.worker.service_name }
  tables   = [var.state.fleet_table_name, var.state.signal_table_name]

  # A table's own events and those of its indexes are counted apart.
  throttled = concat(
    [for t in local.tables : { TableName = t }],
    [for i in ["by-index", "by-shard"] : { TableName = var.state.fleet_table_name, GlobalSecondaryIndexName = i }],
  )
  # SystemErrors are counted by operation alone; these are all that Holdfast uses.
  operations = ["BatchGetItem", "GetItem", "Query", "TransactWriteItems", "UpdateItem"]

  # metrics: several are added up. of, in: so many bad points of so many. Missing
  # points are good ones, but where missing says otherwise.
  alarms = {
    sessions-unowned     = { metrics = [local.ours.SessionsUnowned], statistic = "Maximum", period = local.sweep, of = 2, in = 3, above = 0, missing = "breaching" }
    workers-below-wanted = { metrics = [local.ours.WorkersAlive], statistic = "Minimum", period = local.sweep, of = 3, in = 5, below = var.workers_wanted, missing = "breaching" }
    sweep-not-running    = { metrics = [local.ours.SweepDuration], statistic = "SampleCount", period = local.sweep, of = 5, in = 5, below = 1, missing = "breaching" }
    capacity-nearly-used = { metrics = [local.ours.CapacityUsed], statistic = "Maximum", period = local.sweep, of = 10, in = 10, above = var.thresholds.capacity_percent }
    pairings-stale       = { metrics = [local.ours.PairingsStale], statistic = "Maximum", period = local.sweep, of = 5, in = 5, above = var.thresholds.pairings_stale }
    # Of peers, and of ECS where a task has stopped. A container that is started again
    # within its task is told of by peers alone.
    workers-died   = { metrics = [local.ours.WorkersDeclaredDead, local.ours.WorkersStopped], statistic = "Sum", period = 300, of = 1, in = 1, above = 0 }
    workers-killed = { metrics = [local.ours.WorkersKilled, local.ours.WorkersPanicked], statistic = "Sum", period = 300, of = 1, in = 1, above = 0 }

    # Each worker that lives writes one line a minute.
    workers-silent         = { metrics = [local.ours.LeaseTrust], statistic = "SampleCount", period = 60, of = 5, in = 5, below = var.workers_wanted, missing = "breaching" }
    lease-trust-low        = { metrics = [local.ours.LeaseTrust], statistic = "Minimum", period = 60, of = 2, in = 3, below = var.thresholds.lease_trust_seconds }
    trust-lost             = { metrics = [local.ours.TrustLost], statistic = "Sum", period = 300, of = 1, in = 1, above = 0 }
    takeover-slow          = { metrics = [local.ours.TakeoverDuration], statistic = "Maximum", period = 300, of = 1, in = 1, above = var.thresholds.takeover_seconds }
    reconnect-exhausted    = { metrics = [local.ours.ReconnectExhausted], statistic = "Sum", period = 300, of = 1, in = 1, above = var.thresholds.reconnect_exhausted }
    outage                 = { metrics = [local.ours.Outages], statistic = "Sum", period = 300, of = 1, in = 1, above = 0 }
    fenced-writes          = { metrics = [local.ours.FencedWrites], statistic = "Sum", period = 300, of = 1, in = 1, above = 0 }
    sessions-logged-out    = { metrics = [local.ours.DisconnectsLoggedOut], statistic = "Sum", period = 300, of = 1, in = 1, above = var.thresholds.sessions_logged_out }
    sessions-need-a-person = { metrics = [local.ours.StateBanned, local.ours.StateConflict, local.ours.StateFailed], statistic = "Sum", period = 60, of = 10, in = 10, above = var.thresholds.sessions_stuck }
    messages-undecryptable = { metrics = [local.ours.Undecryptable], statistic = "Sum", period = 900, of = 1, in = 1, above = var.thresholds.undecryptable }
    store-failing          = { metrics = [local.ours.StoreErrors], statistic = "Sum", period = 300, of = 1, in = 1, above = var.thresholds.store_errors }
    webhooks-failing       = { metrics = [local.ours.WebhookFailures], statistic = "Sum", period = 300, of = 3, in = 3, above = var.thresholds.webhook_failures }
    webhooks-refused       = { metrics = [local.ours.WebhookRefused], statistic = "Sum", period = 300, of = 1, in = 1, above = var.thresholds.webhook_refusals }
    queue-filling          = { metrics = [local.ours.QueuesFilling], statistic = "Sum", period = 300, of = 1, in = 1, above = 0 }
    workers-crashing       = { metrics = [{ namespace = local.from_log.namespace, name = local.from_log.name, dimensions = {} }], statistic = "Sum", period = 300, of = 1, in = 1, above = 0 }

    # Of AWS. Alarms on a single metric of DynamoDB keep their state when points are
    # missing, which they are as soon as all is well again; those on a sum do not.
    dynamodb-throttled = {
      metrics   = [for m in setproduct(["ReadThrottleEvents", "WriteThrottleEvents"], local.throttled) : { namespace = "AWS/DynamoDB", name = m[0], dimensions = m[1] }]
      statistic = "Sum", period = 300, of = 1, in = 1, above = var.thresholds.dynamodb_throttles
    }
    dynamodb-failing = {
      metrics   = [for m in setproduct(local.tables, local.operations) : { namespace = "AWS/DynamoDB", name = "SystemErrors", dimensions = { TableName = m[0], Operation = m[1] } }]
      statistic = "Sum", period = 300, of = 1, in = 1, above = var.thresholds.dynamodb_errors
    }
    function-failing   = { metrics = [{ namespace = "AWS/Lambda", name = "Errors", dimensions = local.function }], statistic = "Sum", period = 300, of = 2, in = 3, above = 0 }
    function-throttled = { metrics = [{ namespace = "AWS/Lambda", name = "Throttles", dimensions = local.function }], statistic = "Sum", period = 300, of = 1, in = 1, above = 0 }
    dead-letters       = { metrics = [{ namespace = "AWS/SQS", name = "ApproximateNumberOfMessagesVisible", dimensions = { QueueName = var.control.dead_letter_queue_name } }], statistic = "Maximum", period = 300, of = 1, in = 1, above = 0 }
    api-failing        = { metrics = [{ namespace = "AWS/ApiGateway", name = "5xx", dimensions = { ApiId = var.control.api_id } }], statistic = "Sum", period = 300, of = 1, in = 1, above = var.thresholds.api_5xx }
    worker-memory-high = { metrics = [{ namespace = "AWS/ECS", name = "MemoryUtilization", dimensions = local.service }], statistic = "Maximum", period = 60, of = 10, in = 10, above = var.thresholds.memory_percent }
    worker-cpu-high    = { metrics = [{ namespace = "AWS/ECS", name = "CPUUtilization", dimensions = local.service }], statistic = "Average", period = 300, of = 3, in = 3, above = var.thresholds.cpu_percent }
  }

  meanings = jsondecode(file("${path.module}/alarms.json"))
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name        = "${var.name}-${each.key}"
  alarm_description = "${local.meanings[each.key]} Runbook: ${var.runbooks}${each.key}.md"
  alarm_actions     = local.topics
  ok_actions        = local.topics
  tags              = local.tags

  evaluation_periods  = each.value.in
  datapoints_to_alarm = each.value.of
  threshold           = try(each.value.above, each.value.below)
  comparison_operator = can(each.value.above) ? "GreaterThanThreshold" : "LessThanThreshold"
  treat_missing_data  = try(each.value.missing, "notBreaching")

  namespace   = length(each.value.metrics) == 1 ? each.value.metrics[0].namespace : null
  metric_name = length(each.value.metrics) == 1 ? each.value.metrics[0].name : null
  dimensions  = length(each.value.metrics) == 1 ? each.value.metrics[0].dimensions : null
  statistic   = length(each.value.metrics) == 1 ? each.value.statistic : null
  period      = length(each.value.metrics) == 1 ? each.value.period : null

  dynamic "metric_query" {
    for_each = length(each.value.metrics) == 1 ? [] : [1]

    content {
      id          = "total"
      expression  = "SUM(METRICS())"
      label       = each.key
      return_data = true
    }
  }

  dynamic "metric_query" {
    for_each = length(each.value.metrics) == 1 ? [] : each.value.metrics

    content {
      id = "m${metric_query.key}"

      metric {
        namespace   = metric_query.value.namespace
        metric_name = metric_query.value.name
        dimensions  = metric_query.value.dimensions
        stat        = each.value.statistic
        period      = each.value.period
      }
    }
  }
}
