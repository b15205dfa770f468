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

variable "api_keys" {
  description = "Who may use the API: name, role and the SHA-256 of the key in hex."
  type = map(object({
    role   = string
    sha256 = string
  }))
}

variable "webhook_url" {
  description = "Where events go. Null: to the worker's log, contents included; better set one soon."
  type        = string
  default     = null
}

variable "webhook_secret_arn" {
  description = "ARN of the secret in Secrets Manager, or of the SSM parameter, that signs what is sent to the webhook."
  type        = string
  default     = null
}

variable "availability_zones" {
  description = "Availability zones, two to four; empty: the first two of the region."
  type        = list(string)
  default     = []
}

variable "keep" {
  description = "Whether tables and bucket are protected from terraform destroy. false is for a fleet to try things with."
  type        = bool
  default     = true
}
