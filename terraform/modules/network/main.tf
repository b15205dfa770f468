# A VPC that lets nothing in. Gateway endpoints take what goes to S3 and DynamoDB,
# which is most of it: they cost nothing, and NAT would cost by the byte.

data "aws_region" "current" {}

data "aws_availability_zones" "here" {
  state = "available"

  # Without local zones and wavelength zones, which have no Fargate.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

locals {
  tags    = merge({ "holdfast:fleet" = var.name }, var.tags)
  zones   = length(var.availability_zones) > 0 ? var.availability_zones : slice(data.aws_availability_zones.here.names, 0, var.zones)
  private = var.nat != "none"
  # Each zone's place in the network: 8 public subnets, then 8 private ones.
  index    = { for i, z in local.zones : z => i }
  gateways = var.nat == "none" ? {} : var.nat == "single" ? { (local.zones[0]) = 0 } : local.index
}

#tfsec:ignore:aws-ec2-require-vpc-flow-logs-for-all-vpcs -- nothing comes in, and flow logs cost more than a small fleet; an account that wants them has a rule for it
resource "aws_vpc" "fleet" {
  cidr_block           = var.cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = merge(local.tags, { Name = var.name })
}

resource "aws_internet_gateway" "fleet" {
  vpc_id = aws_vpc.fleet.id
  tags   = merge(local.tags, { Name = var.name })
}

resource "aws_subnet" "public" {
  for_each = local.index

  vpc_id                  = aws_vpc.fleet.id
  availability_zone       = each.key
  cidr_block              = cidrsubnet(var.cidr, 4, each.value)
  map_public_ip_on_launch = false # workers ask for one
  tags                    = merge(local.tags, { Name = "${var.name}-public-${each.key}" })
}

resource "aws_route_table" "public" {
  vpc_id = aws_vpc.fleet.id
  tags   = merge(local.tags, { Name = "${var.name}-public" })
}

resource "aws_route" "public" {
  route_table_id         = aws_route_table.public.id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.fleet.id
}

resource "aws_route_table_association" "public" {
  for_each = local.index

  subnet_id      = aws_subnet.public[each.key].id
  route_table_id = aws_route_table.public.id
}

resource "aws_subnet" "private" {
  for_each = local.private ? local.index : {}

  vpc_id            = aws_vpc.fleet.id
  availability_zone = each.key
  cidr_block        = cidrsubnet(var.cidr, 4, 8 + each.value)
  tags              = merge(local.tags, { Name = "${var.name}-private-${each.key}" })
}

resource "aws_eip" "nat" {
  for_each = local.gateways

  domain = "vpc"
  tags   = merge(local.tags, { Name = "${var.name}-nat-${each.key}" })
}

resource "aws_nat_gateway" "fleet" {
  for_each = local.gateways

  allocation_id = aws_eip.nat[each.key].allocation_id
  subnet_id     = aws_subnet.public[each.key].id
  tags          = merge(local.tags, { Name = "${var.name}-${each.key}" })

  depends_on = [aws_internet_gateway.fleet]
}

resource "aws_route_table" "private" {
  for_each = local.private ? local.index : {}

  vpc_id = aws_vpc.fleet.id
  tags   = merge(local.tags, { Name = "${var.name}-private-${each.key}" })
}

resource "aws_route" "private" {
  for_each = local.private ? local.index : {}

  route_table_id         = aws_route_table.private[each.key].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.fleet[var.nat == "single" ? local.zones[0] : each.key].id
}

resource "aws_route_table_association" "private" {
  for_each = local.private ? local.index : {}

  subnet_id      = aws_subnet.private[each.key].id
  route_table_id = aws_route_table.private[each.key].id
}

resource "aws_vpc_endpoint" "gateway" {
  for_each = toset(["s3", "dynamodb"])

  vpc_id            = aws_vpc.fleet.id
  vpc_endpoint_type = "Gateway"
  service_name      = "com.amazonaws.${data.aws_region.current.region}.${each.key}"
  route_table_ids   = concat([aws_route_table.public.id], [for t in aws_route_table.private : t.id])
  tags              = merge(local.tags, { Name = "${var.name}-${each.key}" })
}
