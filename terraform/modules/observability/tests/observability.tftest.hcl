# What alarms watch, whom they tell, and which values are refused. That each alarm
# fires when it should is terraform/alarmtest's to show.
mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws", dns_suffix = "amazonaws.com" }
  }
  mock_data "aws_region" {
    defaults = { region = "eu-west-1" }
  }
  mock_resource "aws_sns_topic" {
    defaults = { arn = "arn:aws:sns:eu-west-1:123456789012:shop-alarms" }
  }
  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-west-1:123456789012:key/0f7b" }
  }
  mock_resource "aws_cloudwatch_metric_alarm" {
    defaults = { arn = "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:shop-one" }
  }
}

variables {
  name           = "shop"
  tags           = { team = "messages" }
  state          = { name = "shop", fleet_table_name = "shop-fleet", signal_table_name = "shop-signal" }
  worker         = { cluster_name = "shop", service_name = "shop-worker", log_group_name = "/holdfast/shop/worker" }
  control        = { function_name = "shop-control", api_id = "a1b2c3", dead_letter_queue_name = "shop-control-failed" }
  workers_wanted = 2
  emails         = ["ops@example.org"]
}

run "by_itself" {
  command = apply

  assert {
    condition     = keys(aws_cloudwatch_metric_alarm.this) == keys(jsondecode(file("./alarms.json")))
    error_message = "alarms and their meanings must be the same"
  }
  assert {
    condition     = alltrue([for k, a in aws_cloudwatch_metric_alarm.this : a.alarm_name == "shop-${k}" && strcontains(a.alarm_description, "Runbook: infra/guide/runbooks/${k}.md") && length(a.alarm_description) <= 1024])
    error_message = "each alarm must say what it means and name its runbook"
  }
  assert {
    condition     = alltrue([for a in aws_cloudwatch_metric_alarm.this : a.alarm_actions == toset([output.topic_arn]) && a.ok_actions == toset([output.topic_arn])])
    error_message = "each alarm must go to the topic, and its end as well"
  }
  assert {
    condition     = alltrue([for k in ["sessions-unowned", "workers-below-wanted", "workers-silent", "sweep-not-running"] : aws_cloudwatch_metric_alarm.this[k].treat_missing_data == "breaching"])
    error_message = "what is always there is missing when something is dead"
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["workers-below-wanted"].threshold == 2 && aws_cloudwatch_metric_alarm.this["workers-below-wanted"].comparison_operator == "LessThanThreshold"
    error_message = "two workers are wanted"
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["sessions-unowned"].dimensions == tomap({ Fleet = "shop" }) && aws_cloudwatch_metric_alarm.this["sessions-unowned"].period == 60
    error_message = "the sweep's metrics have one dimension and come once a minute"
  }
  assert {
    condition     = alltrue([for a in aws_cloudwatch_metric_alarm.this : length([for q in a.metric_query : q if length(q.metric) > 0]) <= 10])
    error_message = "an alarm takes ten metrics"
  }
  assert {
    condition     = aws_sns_topic.alarms[0].kms_master_key_id == aws_kms_key.alarms[0].arn && aws_kms_key.alarms[0].enable_key_rotation
    error_message = "the topic must be encrypted with a key that rotates"
  }
  assert {
    condition = anytrue([for s in jsondecode(aws_kms_key.alarms[0].policy).Statement :
      s.Principal == { Service = "cloudwatch.amazonaws.com" } && s.Action == ["kms:Decrypt", "kms:GenerateDataKey*"] && s.Condition.StringEquals["aws:SourceAccount"] == "123456789012"
    if s.Sid == "Alarms"])
    error_message = "CloudWatch must be able to use the key, and for this account alone"
  }
  assert {
    condition     = one(jsondecode(aws_sns_topic_policy.alarms[0].policy).Statement).Condition.ArnLike["aws:SourceArn"] == "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:shop-*"
    error_message = "only alarms of this fleet may publish"
  }
  assert {
    condition     = aws_sns_topic_subscription.email["ops@example.org"].protocol == "email"
    error_message = "nobody is told"
  }
  assert {
    condition     = aws_cloudwatch_log_metric_filter.crashed.log_group_name == "/holdfast/shop/worker" && one(aws_cloudwatch_log_metric_filter.crashed.metric_transformation).name == "shop-WorkersCrashed"
    error_message = "crashes must be counted, for each fleet apart"
  }
  assert {
    condition     = length(jsondecode(aws_cloudwatch_dashboard.fleet.dashboard_body).widgets) == 16
    error_message = "the dashboard has other widgets"
  }
  assert {
    condition     = aws_sns_topic.alarms[0].tags == tomap({ "holdfast:fleet" = "shop", team = "messages" })
    error_message = "tags are missing"
  }
}

run "a_topic_of_ones_own" {
  command = plan

  variables {
    topic_arn     = "arn:aws:sns:eu-west-1:123456789012:pager"
    emails        = []
    sweep_minutes = 5
    thresholds    = { api_5xx = 50 }
    runbooks      = "https://wiki.example.org/holdfast/"
  }

  assert {
    condition     = length(aws_sns_topic.alarms) + length(aws_kms_key.alarms) + length(aws_sns_topic_policy.alarms) + length(aws_sns_topic_subscription.email) == 0
    error_message = "another topic was made"
  }
  assert {
    condition     = alltrue([for a in aws_cloudwatch_metric_alarm.this : a.alarm_actions == toset(["arn:aws:sns:eu-west-1:123456789012:pager"])])
    error_message = "alarms go elsewhere"
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["sessions-unowned"].period == 300 && aws_cloudwatch_metric_alarm.this["workers-silent"].period == 60
    error_message = "what the sweep writes must be looked at as often as it sweeps"
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["api-failing"].threshold == 50 && aws_cloudwatch_metric_alarm.this["store-failing"].threshold == 5
    error_message = "thresholds must be changed one by one"
  }
  assert {
    condition     = endswith(aws_cloudwatch_metric_alarm.this["outage"].alarm_description, "Runbook: https://wiki.example.org/holdfast/outage.md")
    error_message = "runbooks are elsewhere"
  }
}

run "names_that_are_none" {
  command = plan
  variables { name = "Shop!" }
  expect_failures = [var.name]
}

run "tables_of_another_fleet" {
  command = plan
  variables { state = { name = "shop", fleet_table_name = "desk-fleet", signal_table_name = "shop-signal" } }
  expect_failures = [var.state]
}

run "no_workers_wanted" {
  command = plan
  variables { workers_wanted = 0 }
  expect_failures = [var.workers_wanted]
}

run "half_a_worker" {
  command = plan
  variables { workers_wanted = 1.5 }
  expect_failures = [var.workers_wanted]
}

run "a_sweep_too_rare" {
  command = plan
  variables { sweep_minutes = 90 }
  expect_failures = [var.sweep_minutes]
}

run "no_address" {
  command = plan
  variables { emails = ["ops"] }
  expect_failures = [var.emails]
}

run "addresses_for_anothers_topic" {
  command = plan
  variables { topic_arn = "arn:aws:sns:eu-west-1:123456789012:pager" }
  expect_failures = [var.emails]
}

run "a_fifo_topic" {
  command = plan
  variables {
    topic_arn = "arn:aws:sns:eu-west-1:123456789012:pager.fifo"
    emails    = []
  }
  expect_failures = [var.topic_arn]
}

run "runbooks_without_a_slash" {
  command = plan
  variables { runbooks = "infra/guide" }
  expect_failures = [var.runbooks]
}

run "a_share_that_is_never_passed" {
  command = plan
  variables { thresholds = { memory_percent = 100 } }
  expect_failures = [var.thresholds]
}

run "a_threshold_below_zero" {
  command = plan
  variables { thresholds = { store_errors = -1 } }
  expect_failures = [var.thresholds]
}

run "trust_that_is_never_low" {
  command = plan
  variables { thresholds = { lease_trust_seconds = 0 } }
  expect_failures = [var.thresholds]
}

run "a_key_deleted_too_soon" {
  command = plan
  variables { key_deletion_window_days = 1 }
  expect_failures = [var.key_deletion_window_days]
}
