variable "region" {
  description = "AWS region."
  type        = string
  default     = "eu-west-1"
}

variable "name" {
  description = "The fleet's name."
  type        = string
  default     = "holdfast"
}

variable "image" {
  description = "The image in ECR: ACCOUNT.dkr.ecr.REGION.amazonaws.com/holdfast:TAG. It is built for ARM64."
  type        = string
}

variable "lambda_zip" {
  description = "Path of what make lambda writes."
  type        = string
  default     = "../../../dist/lambda-arm64.zip"
}

variable "vpc_id" {
  description = "Your VPC. It should have gateway endpoints for S3 and DynamoDB: without them NAT takes its price by the byte."
  type        = string
}

variable "subnet_ids" {
  description = "Subnets of it, in two or more zones, with a way to the internet."
  type        = list(string)
}

variable "public_subnets" {
  description = "Whether the subnets are public, so that workers need addresses of their own; false: they have NAT."
  type        = bool
  default     = false
}

variable "cluster_arn" {
  description = "Your ECS cluster; null: the fleet gets its own."
  type        = string
  default     = null
}

variable "operator_arn" {
  description = "Who may use the API, with requests signed by AWS credentials: a pattern such as arn:aws:sts::123456789012:assumed-role/operators/*"
  type        = string
}

variable "permissions_boundary_arn" {
  description = "The policy that bounds the permissions of roles, where your account wants one."
  type        = string
  default     = null
}
