# Workers as a service of ECS on Fargate. A task has no address of its own that
# matters and nothing connects to it: it asks DynamoDB, S3, KMS and WhatsApp, and
# wishes reach it through the tables.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  tags    = merge({ "holdfast:fleet" = var.name }, var.tags)
  account = data.aws_caller_identity.current.account_id
  region  = data.aws_region.current.region

  # The name of the container; the function that hears of stopped tasks looks for it.
  container = "holdfast"

  cluster_arn  = var.cluster_arn == null ? aws_ecs_cluster.own[0].arn : var.cluster_arn
  cluster_name = var.cluster_arn == null ? aws_ecs_cluster.own[0].name : element(split("/", var.cluster_arn), -1)

  environment = merge(var.state.settings, {
    HOLDFAST_DATA_DIR   = var.data_dir
    HOLDFAST_DRAIN      = "${var.drain_seconds}s"
    HOLDFAST_LISTEN     = "127.0.0.1:8080" # for the health check; the image has all addresses
    HOLDFAST_LOG_FORMAT = "json"
  }, var.environment)

  # One of the two is there; see autoscaled.
  service = one(concat(aws_ecs_service.fixed, aws_ecs_service.scaled))
}

#tfsec:ignore:aws-ecs-enable-container-insight -- container_insights turns it on; it costs more than a small fleet
resource "aws_ecs_cluster" "own" {
  count = var.cluster_arn == null ? 1 : 0

  name = var.name
  tags = local.tags

  setting {
    name  = "containerInsights"
    value = var.container_insights
  }
}

resource "aws_cloudwatch_log_group" "worker" {
  name              = "/holdfast/${var.name}/worker"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.state.key_arn
  tags              = local.tags
}

resource "aws_ecs_task_definition" "worker" {
  family                   = "${var.name}-worker"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = tostring(var.cpu)
  memory                   = tostring(var.memory)
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn
  tags                     = local.tags

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  volume {
    name = "data"
  }

  # Without secrets the list must not be there: ECS does not give an empty one back.
  container_definitions = jsonencode([merge(length(var.secrets) == 0 ? {} : {
    secrets = [for k in sort(keys(var.secrets)) : { name = k, valueFrom = var.secrets[k] }]
    }, {
    name      = local.container
    image     = var.image
    command   = ["worker"]
    essential = true

    # Those of the whole task, said here so that the container has a limit of its own:
    # by that the worker knows how much memory there is, and how many sessions it takes.
    cpu    = var.cpu
    memory = var.memory
    user   = var.user

    environment = [for k in sort(keys(local.environment)) : { name = k, value = local.environment[k] }]

    readonlyRootFilesystem = true
    privileged             = false
    mountPoints            = [{ sourceVolume = "data", containerPath = var.data_dir, readOnly = false }]
    linuxParameters        = { capabilities = { drop = ["ALL"] } }

    # Fargate does not look at the image's own. It asks whether the process lives,
    # never whether WhatsApp or the store answer: a restart would not help those.
    # The process listens once the store has answered, for which it waits a minute.
    healthCheck = {
      command     = ["CMD", "/holdfast", "healthcheck"]
      interval    = 30
      timeout     = 5
      retries     = 3
      startPeriod = 120
    }

    # Longer than drain: sessions are given away before anybody is killed.
    stopTimeout = var.stop_timeout

    # A worker that crashes after a minute or more starts again in its task, in a
    # second, and reads there whose message killed it. One that ends sooner, as with
    # a wrong setting, ends the task, and the deployment is rolled back. Nor does one
    # start again that was done, as a command of run-task is.
    restartPolicy = { enabled = true, ignoredExitCodes = [0], restartAttemptPeriod = 60 }

    # A session has one socket or two, and Fargate allows 65,535 open files: no limit
    # is raised. A log that cannot be written must not stop a worker.
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.worker.name
        awslogs-region        = local.region
        awslogs-stream-prefix = "worker"
        mode                  = "non-blocking"
        max-buffer-size       = "4m"
      }
    }

    portMappings   = []
    volumesFrom    = []
    systemControls = []
  })])
}

# Nothing comes in, on no port.
resource "aws_security_group" "worker" {
  name        = "${var.name}-worker"
  description = "Workers of the Holdfast fleet ${var.name}: nothing comes in"
  vpc_id      = var.vpc_id
  tags        = merge(local.tags, { Name = "${var.name}-worker" })
}

# Webhooks may be anywhere, and WhatsApp names no addresses of its own.
resource "aws_vpc_security_group_egress_rule" "worker" {
  for_each = toset([for p in var.egress_ports : tostring(p)])

  security_group_id = aws_security_group.worker.id
  description       = "To WhatsApp, AWS and webhooks"
  ip_protocol       = "tcp"
  from_port         = tonumber(each.value)
  to_port           = tonumber(each.value)
  cidr_ipv4         = "0.0.0.0/0" #tfsec:ignore:aws-ec2-no-public-egress-sgr -- webhooks may be anywhere
  tags              = local.tags
}

# Two resources that differ in one thing: who sets the count. Terraform cannot be
# told by a variable what to ignore.
resource "aws_ecs_service" "fixed" {
  count = var.autoscaled ? 0 : 1

  name                               = "${var.name}-worker"
  cluster                            = local.cluster_arn
  task_definition                    = aws_ecs_task_definition.worker.arn
  desired_count                      = var.desired_count
  launch_type                        = "FARGATE"
  propagate_tags                     = "SERVICE"
  enable_ecs_managed_tags            = true
  wait_for_steady_state              = var.wait_for_steady_state
  tags                               = local.tags
  deployment_minimum_healthy_percent = 100 # the new ones are there before the old ones give their sessions away
  deployment_maximum_percent         = 200
  availability_zone_rebalancing      = "DISABLED" # it would stop workers for nobody's good

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = var.subnet_ids
    security_groups  = [aws_security_group.worker.id]
    assign_public_ip = var.assign_public_ip
  }

  depends_on = [aws_iam_role_policy.state, aws_iam_role_policy.key, aws_iam_role_policy.execution, aws_vpc_security_group_egress_rule.worker]
}

resource "aws_ecs_service" "scaled" {
  count = var.autoscaled ? 1 : 0

  name                               = "${var.name}-worker"
  cluster                            = local.cluster_arn
  task_definition                    = aws_ecs_task_definition.worker.arn
  desired_count                      = var.desired_count
  launch_type                        = "FARGATE"
  propagate_tags                     = "SERVICE"
  enable_ecs_managed_tags            = true
  wait_for_steady_state              = var.wait_for_steady_state
  tags                               = local.tags
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200
  availability_zone_rebalancing      = "DISABLED"

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = var.subnet_ids
    security_groups  = [aws_security_group.worker.id]
    assign_public_ip = var.assign_public_ip
  }

  lifecycle {
    ignore_changes = [desired_count]
  }

  depends_on = [aws_iam_role_policy.state, aws_iam_role_policy.key, aws_iam_role_policy.execution, aws_vpc_security_group_egress_rule.worker]
}
