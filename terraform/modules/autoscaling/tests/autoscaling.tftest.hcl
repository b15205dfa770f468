# What is scaled by what, and which values are refused.
mock_provider "aws" {}

variables {
  name                = "shop"
  tags                = { team = "messages" }
  state               = { name = "shop" }
  worker              = { cluster_name = "shop", service_name = "shop-worker" }
  max                 = 10
  sessions_per_worker = 1000
}

run "by_itself" {
  command = plan

  assert {
    condition     = aws_appautoscaling_target.workers.resource_id == "service/shop/shop-worker" && aws_appautoscaling_target.workers.min_capacity == 2 && aws_appautoscaling_target.workers.max_capacity == 10
    error_message = "another service is scaled, or to other counts"
  }
  assert {
    condition     = aws_appautoscaling_policy.sessions.policy_type == "TargetTrackingScaling" && one(aws_appautoscaling_policy.sessions.target_tracking_scaling_policy_configuration).target_value == 1000
    error_message = "the target is another"
  }
  assert {
    condition     = one(one(aws_appautoscaling_policy.sessions.target_tracking_scaling_policy_configuration).customized_metric_specification).metric_name == "SessionsPerWorker"
    error_message = "the metric is another"
  }
  assert {
    condition     = [for d in one(one(aws_appautoscaling_policy.sessions.target_tracking_scaling_policy_configuration).customized_metric_specification).dimensions : "${d.name}=${d.value}"] == ["Fleet=shop"]
    error_message = "the dimension is another"
  }
  assert {
    condition     = one(aws_appautoscaling_policy.sessions.target_tracking_scaling_policy_configuration).scale_in_cooldown == 900 && !one(aws_appautoscaling_policy.sessions.target_tracking_scaling_policy_configuration).disable_scale_in
    error_message = "workers are taken away too fast, or never"
  }
  assert {
    condition     = aws_appautoscaling_target.workers.tags == tomap({ "holdfast:fleet" = "shop", team = "messages" })
    error_message = "tags are missing"
  }
}

run "only_out" {
  command = plan
  variables {
    scale_in        = false
    worker_capacity = 1500
  }
  assert {
    condition     = one(aws_appautoscaling_policy.sessions.target_tracking_scaling_policy_configuration).disable_scale_in
    error_message = "workers are taken away"
  }
}

run "names_that_are_none" {
  command = plan
  variables { name = "-shop" }
  expect_failures = [var.name]
}

run "none_at_all" {
  command = plan
  variables { min = 0 }
  expect_failures = [var.min]
}

run "fewer_at_most_than_at_least" {
  command = plan
  variables { max = 1 }
  expect_failures = [var.max]
}

run "no_sessions" {
  command = plan
  variables { sessions_per_worker = 0 }
  expect_failures = [var.sessions_per_worker]
}

run "more_than_workers_take" {
  command = plan
  variables { worker_capacity = 1000 }
  expect_failures = [var.sessions_per_worker]
}

run "in_before_the_sessions_are_given_away" {
  command = plan
  variables { scale_in_cooldown = 60 }
  expect_failures = [var.scale_in_cooldown]
}

run "out_before_a_task_has_started" {
  command = plan
  variables { scale_out_cooldown = 10 }
  expect_failures = [var.scale_out_cooldown]
}
