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

variable "availability_zones" {
  description = "Availability zones, two to four; empty: the first three of the region."
  type        = list(string)
  default     = []
}

variable "workers" {
  description = "How many workers run at least."
  type        = number
  default     = 3
}

variable "max_workers" {
  description = "How many workers run at most."
  type        = number
  default     = 12
}

variable "sessions_per_worker" {
  description = "How many sessions a worker should have. It takes some 1,500; the rest is for those of a worker that dies."
  type        = number
  default     = 1000
}

variable "alarm_emails" {
  description = "Addresses that alarms are sent to. Each gets a message first, whose link must be followed."
  type        = set(string)
  default     = []
}

variable "jwt" {
  description = "Your identity provider: issuer of tokens and whom they are for. Null: operators sign with IAM instead."
  type = object({
    issuer   = string
    audience = list(string)
  })
  default = null
}

variable "iam_roles" {
  description = "Without jwt: which callers have which role, the first that matches."
  type = list(object({
    arn  = string
    role = string
  }))
  default = []
}

variable "profile" {
  description = "guide or gentle: how connections are kept."
  type        = string
  default     = "guide"
}

variable "webhook_url" {
  description = "Where events go."
  type        = string
}

variable "webhook_secret_arn" {
  description = "ARN of the secret in Secrets Manager, or of the SSM parameter, that signs what is sent to the webhook."
  type        = string
}

variable "key_users" {
  description = "Roles of those who work on the state itself from their machines, such as arn:aws:iam::123456789012:role/operators."
  type        = list(string)
  default     = []
}
