# The smallest fleet: one worker of a quarter of a processor, in a public subnet
# that lets nothing in, with API keys. About $15 a month with one session
# (make cost ARGS='-sessions 1'), and enough for a hundred.

provider "aws" {
  region = var.region
}

module "network" {
  source = "../../modules/network"

  name               = var.name
  availability_zones = var.availability_zones
}

module "state" {
  source = "../../modules/state"

  name                = var.name
  deletion_protection = var.keep
  force_destroy       = !var.keep
}

module "worker" {
  source = "../../modules/worker"

  name             = var.name
  state            = module.state
  image            = var.image
  vpc_id           = module.network.vpc_id
  subnet_ids       = module.network.worker_subnet_ids
  assign_public_ip = module.network.assign_public_ip

  environment = var.webhook_url == null ? {} : { HOLDFAST_WEBHOOK_URL = var.webhook_url }
  secrets     = var.webhook_secret_arn == null ? {} : { HOLDFAST_WEBHOOK_SECRET = var.webhook_secret_arn }
}

module "control" {
  source = "../../modules/control"

  name           = var.name
  state          = module.state
  lambda_zip     = var.lambda_zip
  api_keys       = var.api_keys
  cluster_arn    = module.worker.cluster_arn
  service_name   = module.worker.service_name
  container_name = module.worker.container_name
}
