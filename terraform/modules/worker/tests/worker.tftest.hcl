# What the task and the service are, what the roles may do, and which values are refused.
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
  mock_data "aws_availability_zones" {
    defaults = { names = ["eu-west-1a", "eu-west-1b", "eu-west-1c"] }
  }
}

variables {
  name       = "shop"
  image      = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/holdfast:v1"
  vpc_id     = "vpc-1"
  subnet_ids = ["subnet-1", "subnet-2"]
  state = {
    fleet_table_arn  = "arn:aws:dynamodb:eu-west-1:123456789012:table/shop-fleet"
    signal_table_arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/shop-signal"
    bucket_arn       = "arn:aws:s3:::shop-vault"
    vault_prefix     = "vault"
    key_arn          = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd"
    settings = {
      HOLDFAST_STATE      = "dynamodb:shop"
      HOLDFAST_VAULT      = "s3://shop-vault/vault"
      HOLDFAST_MASTER_KEY = "awskms:arn:aws:kms:eu-west-1:123456789012:key/1234abcd"
    }
  }
}

run "task" {
  command = plan

  assert {
    condition     = one(aws_ecs_task_definition.worker.runtime_platform).cpu_architecture == "ARM64" && aws_ecs_task_definition.worker.cpu == "256" && aws_ecs_task_definition.worker.memory == "512"
    error_message = "the smallest worker is a quarter of an ARM processor"
  }
  assert {
    condition = alltrue([for c in jsondecode(aws_ecs_task_definition.worker.container_definitions) : alltrue([
      c.readonlyRootFilesystem, !c.privileged, c.user == "65532:65532", c.linuxParameters.capabilities.drop == ["ALL"],
      c.healthCheck.command == ["CMD", "/holdfast", "healthcheck"], c.stopTimeout == 120, c.command == ["worker"], length(c.portMappings) == 0,
      c.mountPoints == [{ sourceVolume = "data", containerPath = "/data", readOnly = false }], c.restartPolicy.enabled,
      c.memory == 512,
    ])])
    error_message = "the container has more rights or less care than it should"
  }
  assert {
    condition = { for e in jsondecode(aws_ecs_task_definition.worker.container_definitions)[0].environment : e.name => e.value } == {
      HOLDFAST_STATE      = "dynamodb:shop"
      HOLDFAST_VAULT      = "s3://shop-vault/vault"
      HOLDFAST_MASTER_KEY = "awskms:arn:aws:kms:eu-west-1:123456789012:key/1234abcd"
      HOLDFAST_DATA_DIR   = "/data"
      HOLDFAST_DRAIN      = "90s"
      HOLDFAST_LISTEN     = "127.0.0.1:8080"
      HOLDFAST_LOG_FORMAT = "json"
    }
    error_message = "the settings are others"
  }
  assert {
    condition     = !can(jsondecode(aws_ecs_task_definition.worker.container_definitions)[0].secrets)
    error_message = "without secrets there must be no list of them"
  }
  assert {
    condition     = aws_cloudwatch_log_group.worker.name == "/holdfast/shop/worker" && aws_cloudwatch_log_group.worker.retention_in_days == 30
    error_message = "the log must be where the key's policy has it, and end some day"
  }
}

run "service" {
  command = plan

  assert {
    condition     = aws_ecs_service.fixed[0].deployment_minimum_healthy_percent == 100 && aws_ecs_service.fixed[0].deployment_maximum_percent == 200
    error_message = "new workers must be there before old ones go"
  }
  assert {
    condition     = aws_ecs_service.fixed[0].availability_zone_rebalancing == "DISABLED" && aws_ecs_service.fixed[0].launch_type == "FARGATE"
    error_message = "workers must not be stopped for the zones' sake"
  }
  assert {
    condition     = one(aws_ecs_service.fixed[0].deployment_circuit_breaker).enable && one(aws_ecs_service.fixed[0].deployment_circuit_breaker).rollback
    error_message = "a bad deployment must be rolled back"
  }
  assert {
    condition     = keys(aws_vpc_security_group_egress_rule.worker) == ["443"]
    error_message = "workers reach port 443 alone"
  }
  assert {
    condition     = output.service_name == "shop-worker" && output.cluster_name == "shop"
    error_message = "the names are others"
  }
}

run "secrets" {
  command = plan
  variables {
    secrets = {
      HOLDFAST_WEBHOOK_SECRET = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:shop-abc123:webhook::"
      HOLDFAST_PROXY          = "arn:aws:ssm:eu-west-1:123456789012:parameter/shop/proxy"
    }
    environment      = { HOLDFAST_PROFILE = "gentle" }
    secrets_key_arns = ["arn:aws:kms:eu-west-1:123456789012:key/5678"]
  }

  assert {
    condition = jsondecode(aws_ecs_task_definition.worker.container_definitions)[0].secrets == [
      { name = "HOLDFAST_PROXY", valueFrom = "arn:aws:ssm:eu-west-1:123456789012:parameter/shop/proxy" },
      { name = "HOLDFAST_WEBHOOK_SECRET", valueFrom = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:shop-abc123:webhook::" },
    ]
    error_message = "secrets must come from where they are kept"
  }
}

# After an apply, because the execution role's policy names the log group.
run "roles" {
  variables {
    secrets = { HOLDFAST_WEBHOOK_SECRET = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:shop-abc123:webhook::" }
  }

  assert {
    condition     = { for s in jsondecode(aws_iam_role_policy.execution.policy).Statement : s.Sid => s.Resource if s.Sid != "Log" } == { Registry = ["*"], Image = ["arn:aws:ecr:eu-west-1:123456789012:repository/holdfast"], Secrets = ["arn:aws:secretsmanager:eu-west-1:123456789012:secret:shop-abc123"] }
    error_message = "the execution role must reach its image and its secrets, and nothing else"
  }
  assert {
    condition     = alltrue([for s in jsondecode(aws_iam_role_policy.state.policy).Statement : !contains(flatten([s.Resource]), "*")])
    error_message = "the worker must reach its own state alone"
  }
  assert {
    condition     = alltrue([for s in jsondecode(aws_iam_role_policy.key.policy).Statement : can(s.Condition)])
    error_message = "every use of the key must be bound to its purpose"
  }
  assert {
    condition     = aws_iam_role.task.name == "shop-worker"
    error_message = "the key's policy knows the role by this name"
  }
}

run "elsewhere" {
  command = plan
  variables {
    image       = "registry.example.com/holdfast:v1"
    cluster_arn = "arn:aws:ecs:eu-west-1:123456789012:cluster/shared"
    autoscaled  = true
  }

  assert {
    condition     = length(aws_ecs_cluster.own) == 0 && output.cluster_name == "shared" && length(aws_ecs_service.fixed) == 0 && aws_ecs_service.scaled[0].cluster == "arn:aws:ecs:eu-west-1:123456789012:cluster/shared"
    error_message = "the service must run in the cluster that is there"
  }
  assert {
    condition     = aws_ecs_service.scaled[0].availability_zone_rebalancing == "DISABLED" && aws_ecs_service.scaled[0].deployment_minimum_healthy_percent == 100 && aws_ecs_service.scaled[0].deployment_maximum_percent == 200 && one(aws_ecs_service.scaled[0].deployment_circuit_breaker).rollback
    error_message = "it must be deployed as the other one is"
  }
  assert {
    condition     = length(local.repository) == 0
    error_message = "another registry wants nothing of ECR"
  }
}

run "drain_longer_than_life" {
  command = plan
  variables {
    drain_seconds = 90
    stop_timeout  = 60
  }
  expect_failures = [var.stop_timeout]
}

run "bad_values" {
  command = plan
  variables {
    image              = "holdfast"
    architecture       = "arm64"
    cpu                = 300
    desired_count      = -1
    drain_seconds      = 111
    container_insights = "on"
    subnet_ids         = []
    egress_ports       = [80]
    user               = "0:0"
    data_dir           = "data"
    log_retention_days = 31
  }
  expect_failures = [
    var.image, var.architecture, var.cpu, var.desired_count, var.drain_seconds, var.container_insights, var.subnet_ids,
    var.egress_ports, var.user, var.data_dir, var.log_retention_days,
  ]
}

run "memory_that_fargate_has_not" {
  command = plan
  variables {
    cpu    = 256
    memory = 4096
  }
  expect_failures = [var.memory]
}

run "secret_in_the_open" {
  command = plan
  variables {
    environment = { HOLDFAST_WEBHOOK_SECRET = "whsec_x" }
  }
  expect_failures = [var.environment]
}

run "setting_of_the_module" {
  command = plan
  variables {
    environment = { HOLDFAST_DRAIN = "5s" }
  }
  expect_failures = [var.environment]
}

run "secret_that_is_no_arn" {
  command = plan
  variables {
    secrets = { HOLDFAST_WEBHOOK_SECRET = "whsec_x" }
  }
  expect_failures = [var.secrets]
}

run "setting_given_twice" {
  command = plan
  variables {
    environment = { HOLDFAST_PROXY = "http://proxy:3128" }
    secrets     = { HOLDFAST_PROXY = "arn:aws:ssm:eu-west-1:123456789012:parameter/shop/proxy" }
  }
  expect_failures = [var.secrets]
}

run "state_without_settings" {
  command = plan
  variables {
    state = {
      fleet_table_arn  = "a"
      signal_table_arn = "b"
      bucket_arn       = "c"
      vault_prefix     = "vault"
      key_arn          = "d"
      settings         = {}
    }
  }
  expect_failures = [var.state]
}
