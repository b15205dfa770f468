output "vpc_id" {
  description = "Id of the VPC."
  value       = aws_vpc.fleet.id
}

output "worker_subnet_ids" {
  description = "Subnets for the workers: the private ones with NAT, else the public ones."
  value       = local.private ? [for z in local.zones : aws_subnet.private[z].id] : [for z in local.zones : aws_subnet.public[z].id]
}

output "assign_public_ip" {
  description = "Whether workers in these subnets need public addresses."
  value       = !local.private
}

output "public_subnet_ids" {
  description = "The public subnets."
  value       = [for z in local.zones : aws_subnet.public[z].id]
}

output "nat_addresses" {
  description = "The addresses that the fleet is seen from, with NAT: for allow lists of webhooks and proxies."
  value       = [for e in aws_eip.nat : e.public_ip]
}
