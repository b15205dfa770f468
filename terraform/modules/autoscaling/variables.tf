variable "name" {
  description = "The fleet's name, in front of the names of all that is made for it."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,26}[a-z0-9]$", var.name)) && !can(regex("--", var.name))
    error_message = "name: must have 3 to 28 lower case letters, digits and single dashes, begin with a letter and end without a dash."
  }
}

variable "tags" {
  description = "Tags of all resources that take some, beside holdfast:fleet."
  type        = map(string)
  default     = {}
}

variable "state" {
  description = "The outputs of the module state, or an object with the same: its name is the prefix of the tables, by which the program names the fleet in its metrics."
  type        = object({ name = string })
}

variable "worker" {
  description = "The workers to scale: the outputs of the module worker, which must have autoscaled = true, or an object with the same."
  type = object({
    cluster_name = string
    service_name = string
  })
}

variable "min" {
  description = "The fewest workers. Two outlive the death of one without a gap longer than the takeover."
  type        = number
  default     = 2

  validation {
    condition     = var.min >= 1 && floor(var.min) == var.min
    error_message = "min: must be a whole number, 1 or more: what scales by the sessions that workers should have needs a worker to begin with."
  }
}

variable "max" {
  description = "The most workers, which bounds the costs."
  type        = number

  validation {
    condition     = var.max >= var.min && floor(var.max) == var.max
    error_message = "max: must be a whole number that is not below min."
  }
}

variable "sessions_per_worker" {
  description = "How many sessions a worker should have. The rest of its capacity is for those of one that dies: with N workers, at most (N-1)/N of the capacity."
  type        = number

  validation {
    condition     = var.sessions_per_worker >= 1
    error_message = "sessions_per_worker: must be 1 or more."
  }

  validation {
    condition     = var.worker_capacity == null || var.sessions_per_worker <= coalesce(var.worker_capacity, 1) * 0.9
    error_message = "sessions_per_worker: must be at most nine tenths of worker_capacity, or full workers would never call for another one."
  }
}

variable "worker_capacity" {
  description = "What a worker takes at most, HOLDFAST_CAPACITY, to check sessions_per_worker against; null: it is not checked."
  type        = number
  default     = null
}

variable "scale_in" {
  description = "Whether workers are also taken away."
  type        = bool
  default     = true
}

variable "scale_in_cooldown" {
  description = "Seconds after a scale-in until the next one: each moves a worker's sessions. At least the time that a worker may take to give them away, 120."
  type        = number
  default     = 900

  validation {
    condition     = var.scale_in_cooldown >= 120 && var.scale_in_cooldown <= 86400
    error_message = "scale_in_cooldown: must be from 120, which a worker may take to give its sessions away, to 86400."
  }
}

variable "scale_out_cooldown" {
  description = "Seconds after a scale-out until the next one: a task takes a minute to start, and the sweep another to tell."
  type        = number
  default     = 180

  validation {
    condition     = var.scale_out_cooldown >= 60 && var.scale_out_cooldown <= 86400
    error_message = "scale_out_cooldown: must be from 60 to 86400."
  }
}
