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

variable "state" {
  description = "Where the fleet keeps its state: the outputs of the module state, or an object with the same."
  type = object({
    fleet_table_arn  = string
    signal_table_arn = string
    bucket_arn       = string
    vault_prefix     = string
    key_arn          = string
    settings         = map(string)
  })

  validation {
    condition     = alltrue([for k in ["HOLDFAST_STATE", "HOLDFAST_VAULT", "HOLDFAST_MASTER_KEY"] : contains(keys(var.state.settings), k)])
    error_message = "state: its settings must have HOLDFAST_STATE, HOLDFAST_VAULT and HOLDFAST_MASTER_KEY, as the module state gives them."
  }
}

variable "permissions_boundary_arn" {
  description = "ARN of the policy that bounds the roles' permissions, where the account wants one."
  type        = string
  default     = null
}

variable "log_retention_days" {
  description = "For how many days logs are kept."
  type        = number
  default     = 30

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_days)
    error_message = "log_retention_days: must be one of the periods that CloudWatch has: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096 and so on."
  }
}

variable "image" {
  description = "Image of holdfast, as ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY:TAG or with @sha256:DIGEST. A digest, or a tag that never moves, makes a rollback one."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9.-]+(:[0-9]+)?/[a-z0-9._/-]+(:[A-Za-z0-9_.-]+|@sha256:[0-9a-f]{64})$", var.image))
    error_message = "image: must be REGISTRY/REPOSITORY:TAG or REGISTRY/REPOSITORY@sha256:DIGEST."
  }
}

variable "architecture" {
  description = "What the image is built for: ARM64, which costs a fifth less, or X86_64."
  type        = string
  default     = "ARM64"

  validation {
    condition     = contains(["ARM64", "X86_64"], var.architecture)
    error_message = "architecture: must be ARM64 or X86_64."
  }
}

variable "cpu" {
  description = "CPU units of a worker; 1024 are one vCPU. 256 serve 100 sessions, 1024 some 1,500."
  type        = number
  default     = 256

  validation {
    condition     = contains([256, 512, 1024, 2048, 4096], var.cpu)
    error_message = "cpu: must be 256, 512, 1024, 2048 or 4096."
  }
}

variable "memory" {
  description = "MiB of a worker. By itself a worker takes as many sessions as there is memory for."
  type        = number
  default     = 512

  validation {
    condition = contains(lookup({
      256  = [512, 1024, 2048]
      512  = range(1024, 4097, 1024)
      1024 = range(2048, 8193, 1024)
      2048 = range(4096, 16385, 1024)
      4096 = range(8192, 30721, 1024)
    }, var.cpu, []), var.memory)
    error_message = "memory: Fargate has no task of this memory with this cpu. 256 goes with 512, 1024 and 2048; 512 with 1024 to 4096; 1024 with 2048 to 8192; 2048 with 4096 to 16384; 4096 with 8192 to 30720, in steps of 1024."
  }
}

variable "desired_count" {
  description = "How many workers run. With autoscaled it is the count at the creation alone."
  type        = number
  default     = 1

  validation {
    condition     = var.desired_count >= 0 && floor(var.desired_count) == var.desired_count
    error_message = "desired_count: must be a whole number, 0 or more."
  }
}

variable "autoscaled" {
  description = <<-D
    Whether something else than Terraform sets the count after the creation. Decide it at the creation. Changed later without further ado, the service is
    made anew; this keeps it: terraform state mv 'MODULE.aws_ecs_service.fixed[0]' 'MODULE.aws_ecs_service.scaled[0]', or the other way round.
  D
  type        = bool
  default     = false
}

variable "drain_seconds" {
  description = "What a worker that ends may take to give its sessions to the others."
  type        = number
  default     = 90

  validation {
    condition     = var.drain_seconds >= 1 && var.drain_seconds <= 110
    error_message = "drain_seconds: must be from 1 to 110, as the setting drain."
  }
}

variable "stop_timeout" {
  description = "Seconds from SIGTERM to SIGKILL; 120 is the most that Fargate allows."
  type        = number
  default     = 120

  validation {
    condition     = var.stop_timeout >= 2 && var.stop_timeout <= 120
    error_message = "stop_timeout: must be from 2 to 120."
  }

  validation {
    condition     = var.stop_timeout >= var.drain_seconds + 10
    error_message = "stop_timeout: must be at least 10 more than drain_seconds, or workers are killed while they still give sessions away."
  }
}

variable "environment" {
  description = "Further settings, as HOLDFAST_PROFILE. Secrets do not belong here: whoever may look at the task definition reads them."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for k in keys(var.environment) : can(regex("^[A-Z][A-Z0-9_]*$", k))])
    error_message = "environment: names must be of capitals, digits and _, such as HOLDFAST_PROFILE."
  }

  validation {
    condition     = length(setintersection(keys(var.environment), ["HOLDFAST_WEBHOOK_SECRET", "HOLDFAST_API_KEY", "HOLDFAST_WHATSAPP_ROOT_KEY"])) == 0
    error_message = "environment: HOLDFAST_WEBHOOK_SECRET, HOLDFAST_API_KEY and HOLDFAST_WHATSAPP_ROOT_KEY belong into secrets."
  }

  validation {
    condition     = length(setintersection(keys(var.environment), ["HOLDFAST_STATE", "HOLDFAST_VAULT", "HOLDFAST_MASTER_KEY", "HOLDFAST_DRAIN", "HOLDFAST_DATA_DIR"])) == 0
    error_message = "environment: HOLDFAST_STATE, _VAULT, _MASTER_KEY, _DRAIN and _DATA_DIR are set by the module; use state and drain_seconds."
  }
}

variable "secrets" {
  description = <<-D
    Settings that are secrets: the variable, such as HOLDFAST_WEBHOOK_SECRET, HOLDFAST_API_KEYS or HOLDFAST_PROXY, and the ARN of a secret in Secrets
    Manager (ARN:KEY:: for a key of its JSON) or of a parameter in the Systems Manager. A change of the value reaches a worker when it starts.
  D
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for a in values(var.secrets) : can(regex("^arn:[^:]+:(secretsmanager:[^:]+:[^:]*:secret:|ssm:[^:]+:[^:]*:parameter/)", a))])
    error_message = "secrets: each value must be the ARN of a secret in Secrets Manager or of an SSM parameter."
  }

  validation {
    condition     = length(setintersection(keys(var.secrets), keys(var.environment))) == 0
    error_message = "secrets: a setting stands in environment and in secrets; give it once."
  }
}

variable "secrets_key_arns" {
  description = "ARNs of KMS keys that the secrets are encrypted with, where those are not the account's default ones."
  type        = list(string)
  default     = []
}

variable "cluster_arn" {
  description = "ARN of an ECS cluster to run in; null: the fleet gets its own."
  type        = string
  default     = null
}

variable "container_insights" {
  description = "Container Insights of the fleet's own cluster: disabled, enabled or enhanced. It costs more than a small fleet."
  type        = string
  default     = "disabled"

  validation {
    condition     = contains(["disabled", "enabled", "enhanced"], var.container_insights)
    error_message = "container_insights: must be disabled, enabled or enhanced."
  }
}

variable "vpc_id" {
  description = "VPC that the workers run in."
  type        = string
}

variable "subnet_ids" {
  description = "Subnets that the workers run in, of two or more zones. They need a way to the internet."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) > 0
    error_message = "subnet_ids: must name at least one subnet."
  }
}

variable "assign_public_ip" {
  description = "Whether workers get public addresses, which is their way to the internet in a public subnet. Nothing may connect to them either way."
  type        = bool
  default     = false
}

variable "egress_ports" {
  description = "TCP ports that workers may connect to. WhatsApp and AWS are at 443; add those of webhooks and proxies that have others."
  type        = list(number)
  default     = [443]

  validation {
    condition     = contains(var.egress_ports, 443)
    error_message = "egress_ports: must have 443, where WhatsApp and AWS are."
  }
}

variable "user" {
  description = "UID:GID that the worker runs as. The image must have the data folder as a volume that belongs to it."
  type        = string
  default     = "65532:65532"

  validation {
    condition     = can(regex("^[1-9][0-9]*:[1-9][0-9]*$", var.user))
    error_message = "user: must be UID:GID in digits, and not root."
  }
}

variable "data_dir" {
  description = "The only folder that can be written: a volume of the task. It holds no state, but tells the next process in the task how the last one ended."
  type        = string
  default     = "/data"

  validation {
    condition     = can(regex("^/[A-Za-z0-9._/-]+$", var.data_dir))
    error_message = "data_dir: must be an absolute path."
  }
}

variable "wait_for_steady_state" {
  description = "Whether terraform apply waits until the workers run, and fails where a deployment was rolled back."
  type        = bool
  default     = true
}
