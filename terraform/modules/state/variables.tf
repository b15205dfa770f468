variable "name" {
  description = "The fleet's name, in front of the names of all that is made for it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,26}[a-z0-9]$", var.name)) && !can(regex("--", var.name))
    error_message = "name: must have 3 to 28 lower case letters, digits and single dashes, begin with a letter and end without a dash; it is part of a bucket's name."
  }
}

variable "tags" {
  description = "Tags of all resources, beside holdfast:fleet."
  type        = map(string)
  default     = {}
}

variable "bucket_name" {
  description = "Name of the bucket for credentials; by itself NAME-vault-ACCOUNT-REGION."
  type        = string
  default     = null
  nullable    = true

  validation {
    condition     = var.bucket_name == null || can(regex("^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$", var.bucket_name))
    error_message = "bucket_name: must have 3 to 63 lower case letters, digits, dots and dashes."
  }
}

variable "deletion_protection" {
  description = "Whether tables can only be deleted once this is turned off. Turn it off for fleets to try things with alone: with the tables the sessions are gone."
  type        = bool
  default     = true
}

variable "force_destroy" {
  description = "Whether terraform destroy may delete the bucket while credentials are in it."
  type        = bool
  default     = false
}

variable "point_in_time_recovery_days" {
  description = "For how many days the tables can be restored to any second. A restored table connects nothing until holdfast adopt --restored."
  type        = number
  default     = 35

  validation {
    condition     = var.point_in_time_recovery_days >= 1 && var.point_in_time_recovery_days <= 35 && floor(var.point_in_time_recovery_days) == var.point_in_time_recovery_days
    error_message = "point_in_time_recovery_days: must be a whole number from 1 to 35."
  }
}

variable "noncurrent_version_days" {
  description = "For how many days an object stays that somebody else than Holdfast has deleted or overwritten. Holdfast itself deletes all versions of what it deletes."
  type        = number
  default     = 30

  validation {
    condition     = var.noncurrent_version_days >= 7 && var.noncurrent_version_days <= 365 && floor(var.noncurrent_version_days) == var.noncurrent_version_days
    error_message = "noncurrent_version_days: must be a whole number from 7 to 365."
  }
}

variable "access_log_bucket" {
  description = "Bucket that takes the access log of this one, below the fleet's name; null: no access log."
  type        = string
  default     = null
}

variable "key_users" {
  description = <<-D
    ARNs of roles, beside the fleet's own two, that may use the master key if their policies let them, * allowed: of those who run holdfast adopt,
    holdfast keys or holdfast export from their own machine. Nobody else can read a credential, administrators of the account included, unless they
    change the key's policy first, which CloudTrail shows.
  D
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for a in var.key_users : can(regex("^arn:[a-z-]+:(iam|sts)::[0-9]{12}:.+", a))])
    error_message = "key_users: each must be an ARN that names its account, such as arn:aws:iam::123456789012:role/operators."
  }
}

variable "key_deletion_window_days" {
  description = "Days between the order to delete the master key and its end, in which that can be called off. Without the key nothing can be read."
  type        = number
  default     = 30

  validation {
    condition     = var.key_deletion_window_days >= 7 && var.key_deletion_window_days <= 30
    error_message = "key_deletion_window_days: must be from 7 to 30."
  }
}
