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

variable "lambda_zip" {
  description = "Path of the function's zip file, which make lambda writes: dist/lambda-arm64.zip. Null: it is taken from lambda_s3."
  type        = string
  default     = null

  validation {
    condition     = (var.lambda_zip == null) != (var.lambda_s3 == null)
    error_message = "lambda_zip: give either it or lambda_s3."
  }

  validation {
    condition     = var.lambda_zip == null ? true : fileexists(var.lambda_zip)
    error_message = "lambda_zip: there is no such file; make lambda writes dist/lambda-arm64.zip, and a relative path counts from where terraform runs."
  }
}

variable "lambda_s3" {
  description = "Object that is the function's zip file, in a bucket of the same region. Its version is what a change of the function is seen by."
  type = object({
    bucket  = string
    key     = string
    version = optional(string)
  })
  default = null
}

variable "architecture" {
  description = "What the zip file is built for: arm64, which costs a fifth less, or x86_64."
  type        = string
  default     = "arm64"

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "architecture: must be arm64 or x86_64."
  }
}

variable "memory" {
  description = "MiB of the function. Its processor grows with it."
  type        = number
  default     = 256

  validation {
    condition     = var.memory >= 128 && var.memory <= 10240
    error_message = "memory: must be from 128 to 10240."
  }
}

variable "timeout" {
  description = "Seconds that the function may take. Requests have 30 at most; a sweep of very many sessions may need more."
  type        = number
  default     = 60

  validation {
    condition     = var.timeout >= 30 && var.timeout <= 900
    error_message = "timeout: must be from 30 to 900."
  }
}

variable "reserved_concurrency" {
  description = "How many instances of the function run at a time at most; -1: as many as the account has. A small account cannot reserve any."
  type        = number
  default     = -1

  validation {
    condition     = var.reserved_concurrency == -1 || var.reserved_concurrency >= 2
    error_message = "reserved_concurrency: must be -1, or 2 and more: with one, a request would keep the sweep waiting."
  }
}

variable "authorizer" {
  description = "Who is let in: keys (Holdfast's own X-Api-Key), iam (requests signed with AWS credentials) or jwt (tokens of an identity provider)."
  type        = string
  default     = "keys"

  validation {
    condition     = contains(["keys", "iam", "jwt"], var.authorizer)
    error_message = "authorizer: must be keys, iam or jwt."
  }
}

variable "api_keys" {
  description = "For keys: who may do what, by name, with role (viewer, operator, admin) and the SHA-256 of the key in hex. The keys themselves stay with their holders."
  type = map(object({
    role   = string
    sha256 = string
  }))
  default = {}

  validation {
    condition     = var.authorizer != "keys" || length(var.api_keys) > 0
    error_message = "api_keys: none are given, so nobody could use the API; give one, or set authorizer to iam or jwt."
  }

  validation {
    condition     = var.authorizer == "keys" || length(var.api_keys) == 0
    error_message = "api_keys: count with the authorizer keys alone; leave them out, or set authorizer to keys."
  }

  validation {
    condition     = alltrue([for k in values(var.api_keys) : contains(["viewer", "operator", "admin"], k.role) && can(regex("^[0-9a-f]{64}$", k.sha256))])
    error_message = "api_keys: each needs a role (viewer, operator or admin) and a sha256 of 64 hex digits in lower case: printf %s \"$key\" | sha256sum"
  }

  validation {
    condition     = alltrue([for n in keys(var.api_keys) : can(regex("^[A-Za-z0-9._-]+$", n))])
    error_message = "api_keys: names must be of letters, digits, dots, dashes and _."
  }
}

variable "iam_roles" {
  description = "For iam: which callers have which role here. The first that matches counts; * stands in the resource alone, for any text without a slash."
  type = list(object({
    arn  = string
    role = string
  }))
  default = []

  validation {
    condition     = var.authorizer != "iam" || length(var.iam_roles) > 0
    error_message = "iam_roles: none are given, so nobody who signs could use the API; give an ARN such as arn:aws:sts::123456789012:assumed-role/operators/* with its role."
  }

  validation {
    condition     = var.authorizer == "iam" || length(var.iam_roles) == 0
    error_message = "iam_roles: count with the authorizer iam alone; leave them out, or set authorizer to iam."
  }

  validation {
    condition     = alltrue([for r in var.iam_roles : can(regex("^arn:[^:*,=]+:(iam|sts)::[0-9]{12}:[^,=?\\[\\\\]+$", r.arn)) && contains(["viewer", "operator", "admin"], r.role)])
    error_message = "iam_roles: each needs an arn that names its account, with * in its last part alone, and a role: viewer, operator or admin."
  }
}

variable "jwt" {
  description = "For jwt: the issuer of tokens and whom they are for. The claim holdfast_role or a scope holdfast/viewer, holdfast/operator or holdfast/admin gives the role."
  type = object({
    issuer   = string
    audience = list(string)
  })
  default = null

  validation {
    condition     = (var.authorizer == "jwt") == (var.jwt != null)
    error_message = "jwt: is needed with the authorizer jwt, and with no other."
  }

  validation {
    condition     = var.jwt == null ? true : startswith(var.jwt.issuer, "https://") && length(var.jwt.audience) > 0
    error_message = "jwt: needs an issuer that begins with https:// and at least one audience."
  }
}

variable "environment" {
  description = "Further settings of the function: those that it shares with the workers must have their values (HOLDFAST_PROFILE, HOLDFAST_TAKEOVER, HOLDFAST_WEBHOOK_ALLOW_PRIVATE …)."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for k in keys(var.environment) : startswith(k, "HOLDFAST_")])
    error_message = "environment: names must begin with HOLDFAST_."
  }

  validation {
    condition = length(setintersection(keys(var.environment), [
      "HOLDFAST_STATE", "HOLDFAST_VAULT", "HOLDFAST_MASTER_KEY", "HOLDFAST_GATEWAY_AUTH", "HOLDFAST_API_KEYS", "HOLDFAST_IAM_ROLES", "HOLDFAST_WORKER_CONTAINER",
    ])) == 0
    error_message = "environment: the module sets HOLDFAST_STATE, _VAULT, _MASTER_KEY, _GATEWAY_AUTH, _API_KEYS, _IAM_ROLES and _WORKER_CONTAINER itself; use its variables."
  }
}

variable "cluster_arn" {
  description = "ARN of the ECS cluster that the workers run in, whose stopped tasks the function hears of."
  type        = string
}

variable "service_name" {
  description = "Name of the workers' ECS service: what else runs in the cluster is of no interest."
  type        = string
}

variable "container_name" {
  description = "Name of the worker's container in its task."
  type        = string
  default     = "holdfast"
}

variable "sweep_minutes" {
  description = "How often the function looks for sessions that nobody has, in minutes."
  type        = number
  default     = 1

  validation {
    condition     = var.sweep_minutes >= 1 && var.sweep_minutes <= 60 && floor(var.sweep_minutes) == var.sweep_minutes
    error_message = "sweep_minutes: must be a whole number from 1 to 60."
  }
}

variable "throttle_rate" {
  description = "Requests a second that the API takes, of all callers together."
  type        = number
  default     = 50

  validation {
    condition     = var.throttle_rate >= 1
    error_message = "throttle_rate: must be 1 or more."
  }
}

variable "throttle_burst" {
  description = "Requests that the API takes at once, when there were none for a while."
  type        = number
  default     = 100

  validation {
    condition     = var.throttle_burst >= var.throttle_rate
    error_message = "throttle_burst: must not be less than throttle_rate."
  }
}
