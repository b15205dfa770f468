# A task that has stopped: its worker is dead for sure, and others need not wait.
resource "aws_cloudwatch_event_rule" "stopped" {
  name        = "${var.name}-task-stopped"
  description = "A worker's task has stopped: its sessions go to others at once"
  tags        = local.tags

  event_pattern = jsonencode({
    source      = ["aws.ecs"]
    detail-type = ["ECS Task State Change"]
    detail = {
      clusterArn = [var.cluster_arn]
      group      = ["service:${var.service_name}"]
      lastStatus = ["STOPPED"]
    }
  })
}

resource "aws_cloudwatch_event_rule" "sweep" {
  name                = "${var.name}-sweep"
  description         = "Looks for sessions that nobody has"
  schedule_expression = var.sweep_minutes == 1 ? "rate(1 minute)" : "rate(${var.sweep_minutes} minutes)"
  tags                = local.tags
}

locals {
  queue = "${var.name}-control-failed"
  rules = {
    task-stopped = { rule = aws_cloudwatch_event_rule.stopped, retries = 10, age = 3600 }
    # The next one comes soon enough.
    sweep = { rule = aws_cloudwatch_event_rule.sweep, retries = 0, age = 60 }
  }
}

resource "aws_cloudwatch_event_target" "function" {
  for_each = local.rules

  rule      = each.value.rule.name
  target_id = each.key
  arn       = aws_lambda_function.admin.arn

  retry_policy {
    maximum_retry_attempts       = each.value.retries
    maximum_event_age_in_seconds = each.value.age
  }

  dead_letter_config {
    arn = aws_sqs_queue.failed.arn
  }
}

resource "aws_lambda_permission" "events" {
  for_each = local.rules

  statement_id  = each.key
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.admin.function_name
  principal     = "events.amazonaws.com"
  source_arn    = each.value.rule.arn
}

# Events that could not be delivered or handled. Nothing reads it: that something
# is in it is the alarm. The events are ECS's own and hold no secret.
resource "aws_sqs_queue" "failed" {
  name                      = local.queue
  message_retention_seconds = 1209600 # 14 days
  sqs_managed_sse_enabled   = true
  tags                      = local.tags

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Rules"
      Effect    = "Allow"
      Principal = { Service = "events.amazonaws.com" }
      Action    = "sqs:SendMessage"
      Resource  = "arn:${data.aws_partition.current.partition}:sqs:${local.region}:${local.account}:${local.queue}"
      Condition = { ArnEquals = { "aws:SourceArn" = [for r in local.rules : r.rule.arn] } }
    }]
  })
}
