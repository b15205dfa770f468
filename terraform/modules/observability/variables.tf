variable "name" {
  description = "The fleet's name, in front of the names of all that is made for it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,26}[a-z0-9]$", var.name)) && !can(regex("--", var.name))
    error_message = "name: must have 3 to 28 lower case letters, digits and single dashes, begin with a letter and end without a dash."
  }
}

variable "tags" {
  description = "Tags of all resources, beside holdfast:fleet."
  type        = map(string)
  default     = {}
}

variable "state" {
  description = "The tables to watch: the outputs of the module state, or an object with the same. Its name is the prefix of the tables, by which the program names the fleet in its metrics."
  type = object({
    name              = string
    fleet_table_name  = string
    signal_table_name = string
  })

  validation {
    condition     = var.state.fleet_table_name == "${var.state.name}-fleet" && var.state.signal_table_name == "${var.state.name}-signal"
    error_message = "state: its tables must be NAME-fleet and NAME-signal; the metrics have NAME as their Fleet."
  }
}

variable "worker" {
  description = "The workers to watch: the outputs of the module worker, or an object with the same. They must have HOLDFAST_EMF_INTERVAL=1m."
  type = object({
    cluster_name   = string
    service_name   = string
    log_group_name = string
  })
}

variable "control" {
  description = "The admin side to watch, whose sweep watches the workers: the outputs of the module control, or an object with the same."
  type = object({
    function_name          = string
    api_id                 = string
    dead_letter_queue_name = string
  })
}

variable "workers_wanted" {
  description = "How many workers must be alive: the service's desired_count, or the least that autoscaling may leave."
  type        = number

  validation {
    condition     = var.workers_wanted >= 1 && floor(var.workers_wanted) == var.workers_wanted
    error_message = "workers_wanted: must be a whole number, 1 or more."
  }
}

variable "sweep_minutes" {
  description = "The sweep's interval, as the module control has it."
  type        = number
  default     = 1

  validation {
    condition     = var.sweep_minutes >= 1 && var.sweep_minutes <= 60 && floor(var.sweep_minutes) == var.sweep_minutes
    error_message = "sweep_minutes: must be a whole number from 1 to 60."
  }
}

variable "emails" {
  description = "Addresses that alarms are sent to. Each gets a message first, whose link must be followed."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for e in var.emails : can(regex("^[^@\\s]+@[^@\\s]+\\.[^@\\s]+$", e))])
    error_message = "emails: each must be an e-mail address."
  }

  validation {
    condition     = length(var.emails) == 0 || var.topic_arn == null
    error_message = "emails: belong to the topic that is made here; subscribe them to the one in topic_arn yourself."
  }
}

variable "topic_arn" {
  description = "ARN of an SNS topic for alarms; null: one is made, with a key of its own. CloudWatch must be allowed to publish to it, and to use its key where it is encrypted."
  type        = string
  default     = null

  validation {
    condition     = var.topic_arn == null || can(regex("^arn:[^:]+:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]+$", var.topic_arn))
    error_message = "topic_arn: must be arn:aws:sns:REGION:ACCOUNT:NAME; CloudWatch publishes to no FIFO topic."
  }
}

variable "runbooks" {
  description = "What stands before NAME.md in the alarms' descriptions: a folder, or a URL that ends with a slash."
  type        = string
  default     = "infra/guide/runbooks/"

  validation {
    condition     = endswith(var.runbooks, "/") && length(var.runbooks) <= 400
    error_message = "runbooks: must end with a slash and have at most 400 characters."
  }
}

variable "thresholds" {
  description = <<-D
    What the alarms compare with. More than: capacity_percent of the living workers' capacity; pairings_stale and sessions_stuck (banned, in conflict, failed)
    at a time; reconnect_exhausted, sessions_logged_out, webhook_failures and webhook_refusals in 5 minutes, which a large fleet never has without any; takeover_seconds from the sight of a dead worker's session to
    its claim, in steps of 10, 20, 41, 82; undecryptable messages in 15 minutes; store_errors, dynamodb_throttles, dynamodb_errors and api_5xx in 5 minutes; memory_percent of a worker,
    cpu_percent of the service. Less than: lease_trust_seconds, of the 8 that a worker trusts itself by default.
  D
  type = object({
    capacity_percent    = optional(number, 85)
    pairings_stale      = optional(number, 0)
    sessions_stuck      = optional(number, 0)
    reconnect_exhausted = optional(number, 0)
    sessions_logged_out = optional(number, 0)
    webhook_failures    = optional(number, 0)
    webhook_refusals    = optional(number, 0)
    takeover_seconds    = optional(number, 30)
    lease_trust_seconds = optional(number, 4)
    undecryptable       = optional(number, 20)
    store_errors        = optional(number, 5)
    dynamodb_throttles  = optional(number, 20)
    dynamodb_errors     = optional(number, 5)
    api_5xx             = optional(number, 5)
    memory_percent      = optional(number, 85)
    cpu_percent         = optional(number, 85)
  })
  default = {}

  validation {
    condition     = alltrue([for t in values(var.thresholds) : t >= 0])
    error_message = "thresholds: none may be below 0."
  }

  validation {
    condition     = alltrue([for t in [var.thresholds.capacity_percent, var.thresholds.memory_percent, var.thresholds.cpu_percent] : t < 100])
    error_message = "thresholds: capacity_percent, memory_percent and cpu_percent must be below 100, or the alarm comes when it is too late, or never."
  }

  validation {
    condition     = var.thresholds.lease_trust_seconds > 0
    error_message = "thresholds: lease_trust_seconds must be above 0."
  }
}

variable "key_deletion_window_days" {
  description = "For how many days the topic's key can still be brought back after its deletion."
  type        = number
  default     = 7

  validation {
    condition     = var.key_deletion_window_days >= 7 && var.key_deletion_window_days <= 30
    error_message = "key_deletion_window_days: must be from 7 to 30."
  }
}
