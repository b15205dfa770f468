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

variable "cidr" {
  description = "Addresses of the VPC, a /16 to /24."
  type        = string
  default     = "10.62.0.0/16"

  validation {
    condition     = can(cidrhost(var.cidr, 0)) && try(tonumber(split("/", var.cidr)[1]) >= 16 && tonumber(split("/", var.cidr)[1]) <= 24, false)
    error_message = "cidr: must be an IPv4 network with 16 to 24 bits, such as 10.62.0.0/16."
  }
}

variable "zones" {
  description = "In how many availability zones there are subnets, where availability_zones names none."
  type        = number
  default     = 2

  validation {
    condition     = var.zones >= 2 && var.zones <= 4 && floor(var.zones) == var.zones
    error_message = "zones: must be 2, 3 or 4: with one, the fleet ends with its zone."
  }
}

variable "availability_zones" {
  description = "Names of the availability zones, two to four; empty: the first ones of the region."
  type        = list(string)
  default     = []

  validation {
    condition     = length(var.availability_zones) == 0 || length(var.availability_zones) >= 2 && length(var.availability_zones) <= 4
    error_message = "availability_zones: must name two to four, or none."
  }
}

variable "nat" {
  description = <<-D
    How workers reach the internet. none: from public subnets, by public addresses of their own ($3.65 a month each), with nothing that comes in.
    single: from private subnets through one NAT gateway ($33 a month and $0.045 a GB), which all depend on. zone: through one in each zone.
    With NAT the fleet is seen from addresses that stay.
  D
  type        = string
  default     = "none"

  validation {
    condition     = contains(["none", "single", "zone"], var.nat)
    error_message = "nat: must be none, single or zone."
  }
}
