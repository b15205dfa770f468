# A fleet for thousands of sessions: workers in private subnets of three zones
# behind NAT, whose addresses stay, as many as there are sessions for, with a
# webhook, alarms and a dashboard; operators come in by tokens of an identity
# provider or by AWS credentials.

provider "aws" {
  region = var.region
}

locals {
  # What workers and the function must have alike.
  shared = { HOLDFAST_PROFILE = var.profile }
}

module "network" {
  source = "../../modules/network"

  name               = var.name
  zones              = 3
  availability_zones = var.availability_zones
  nat                = "zone"
}

module "state" {
  source = "../../modules/state"

  name      = var.name
  key_users = var.key_users
}

module "worker" {
  source = "../../modules/worker"

  name               = var.name
  state              = module.state
  image              = var.image
  cpu                = 1024
  memory             = 4096
  desired_count      = var.workers
  autoscaled         = true
  container_insights = "enabled"
  log_retention_days = 90
  vpc_id             = module.network.vpc_id
  subnet_ids         = module.network.worker_subnet_ids
  assign_public_ip   = module.network.assign_public_ip
  environment = merge(local.shared, {
    HOLDFAST_EMF_INTERVAL = "1m" # metrics, for the alarms
    HOLDFAST_WEBHOOK_URL  = var.webhook_url
  })
  secrets = { HOLDFAST_WEBHOOK_SECRET = var.webhook_secret_arn }
}

module "control" {
  source = "../../modules/control"

  name               = var.name
  state              = module.state
  lambda_zip         = var.lambda_zip
  authorizer         = var.jwt == null ? "iam" : "jwt"
  jwt                = var.jwt
  iam_roles          = var.jwt == null ? var.iam_roles : []
  cluster_arn        = module.worker.cluster_arn
  service_name       = module.worker.service_name
  container_name     = module.worker.container_name
  environment        = local.shared
  log_retention_days = 90
}

module "autoscaling" {
  source = "../../modules/autoscaling"

  name                = var.name
  state               = module.state
  worker              = module.worker
  min                 = var.workers
  max                 = var.max_workers
  sessions_per_worker = var.sessions_per_worker
}

module "observability" {
  source = "../../modules/observability"

  name           = var.name
  state          = module.state
  worker         = module.worker
  control        = module.control
  workers_wanted = module.autoscaling.min
  emails         = var.alarm_emails
}
