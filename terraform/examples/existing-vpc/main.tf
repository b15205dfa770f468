# A fleet in a VPC, and maybe a cluster, that are there already. Operators sign
# their requests with the AWS credentials that they have.

provider "aws" {
  region = var.region
}

module "state" {
  source = "../../modules/state"

  name = var.name
}

module "worker" {
  source = "../../modules/worker"

  name                     = var.name
  state                    = module.state
  image                    = var.image
  desired_count            = 2
  cluster_arn              = var.cluster_arn
  vpc_id                   = var.vpc_id
  subnet_ids               = var.subnet_ids
  assign_public_ip         = var.public_subnets
  permissions_boundary_arn = var.permissions_boundary_arn
}

module "control" {
  source = "../../modules/control"

  name                     = var.name
  state                    = module.state
  lambda_zip               = var.lambda_zip
  authorizer               = "iam"
  iam_roles                = [{ arn = var.operator_arn, role = "admin" }]
  cluster_arn              = module.worker.cluster_arn
  service_name             = module.worker.service_name
  container_name           = module.worker.container_name
  permissions_boundary_arn = var.permissions_boundary_arn
}
