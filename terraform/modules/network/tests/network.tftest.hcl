# What the network has and has not, and which values are refused.
mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws", dns_suffix = "amazonaws.com" }
  }
  mock_data "aws_region" {
    defaults = { region = "eu-west-1" }
  }
  mock_data "aws_availability_zones" {
    defaults = { names = ["eu-west-1a", "eu-west-1b", "eu-west-1c"] }
  }
}

variables {
  name = "shop"
}

run "public" {
  command = plan

  assert {
    condition     = keys(aws_subnet.public) == ["eu-west-1a", "eu-west-1b"] && length(aws_subnet.private) == 0 && length(aws_nat_gateway.fleet) == 0
    error_message = "the cheap network has public subnets in two zones and no NAT"
  }
  assert {
    condition     = output.assign_public_ip && [for s in aws_subnet.public : s.cidr_block] == ["10.62.0.0/20", "10.62.16.0/20"]
    error_message = "workers need addresses there"
  }
  assert {
    condition     = alltrue([for s in aws_subnet.public : !s.map_public_ip_on_launch])
    error_message = "nothing gets a public address unasked"
  }
  assert {
    condition     = { for k, e in aws_vpc_endpoint.gateway : k => "${e.vpc_endpoint_type} ${e.service_name}" } == { s3 = "Gateway com.amazonaws.eu-west-1.s3", dynamodb = "Gateway com.amazonaws.eu-west-1.dynamodb" }
    error_message = "S3 and DynamoDB must be reached for nothing"
  }
}

run "one_nat" {
  command = plan
  variables {
    nat   = "single"
    zones = 3
  }

  assert {
    condition     = length(aws_subnet.private) == 3 && keys(aws_nat_gateway.fleet) == ["eu-west-1a"] && length(aws_route.private) == 3 && !output.assign_public_ip
    error_message = "three private subnets go through one gateway"
  }
  assert {
    condition     = length(setintersection([for s in aws_subnet.private : s.cidr_block], [for s in aws_subnet.public : s.cidr_block])) == 0
    error_message = "subnets lie on each other"
  }
}

# After an apply, because the route tables have ids then.
run "nat_in_each_zone" {
  variables {
    nat                = "zone"
    cidr               = "10.1.2.0/24"
    availability_zones = ["eu-west-1a", "eu-west-1c"]
  }

  assert {
    condition     = keys(aws_nat_gateway.fleet) == ["eu-west-1a", "eu-west-1c"] && length(output.nat_addresses) == 2
    error_message = "each zone must have a gateway of its own"
  }
  assert {
    condition     = alltrue([for e in aws_vpc_endpoint.gateway : toset(e.route_table_ids) == toset(concat([aws_route_table.public.id], [for t in aws_route_table.private : t.id]))])
    error_message = "every route table must lead to the endpoints"
  }
}

run "bad_values" {
  command = plan
  variables {
    cidr               = "10.0.0.0/8"
    zones              = 1
    availability_zones = ["eu-west-1a"]
    nat                = "yes"
  }
  expect_failures = [var.cidr, var.zones, var.availability_zones, var.nat]
}
