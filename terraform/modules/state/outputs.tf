output "name" {
  description = "The fleet's name, which is the prefix of its tables."
  value       = var.name
}

output "fleet_table_name" {
  description = "Name of the table of the control plane."
  value       = aws_dynamodb_table.fleet.name
}

output "signal_table_name" {
  description = "Name of the table of device state."
  value       = aws_dynamodb_table.signal.name
}

output "fleet_table_arn" {
  description = "ARN of the table of the control plane."
  value       = aws_dynamodb_table.fleet.arn
}

output "signal_table_arn" {
  description = "ARN of the table of device state."
  value       = aws_dynamodb_table.signal.arn
}

output "bucket_name" {
  description = "Name of the bucket that is the vault."
  value       = aws_s3_bucket.vault.id
}

output "bucket_arn" {
  description = "ARN of the bucket that is the vault."
  value       = aws_s3_bucket.vault.arn
}

output "vault_prefix" {
  description = "What the keys of all objects in the vault begin with, less the slash."
  value       = local.prefix
}

output "key_arn" {
  description = "ARN of the master key."
  value       = aws_kms_key.master.arn
}

output "settings" {
  description = "Environment variables that tell holdfast where its state is: of workers, of the function, and of the command on your machine."
  value = {
    HOLDFAST_STATE      = "dynamodb:${var.name}"
    HOLDFAST_VAULT      = "s3://${aws_s3_bucket.vault.id}/${local.prefix}"
    HOLDFAST_MASTER_KEY = "awskms:${aws_kms_key.master.arn}"
  }
}
