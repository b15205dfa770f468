# What the tables, the bucket and the key are, and which values are refused.
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
  tags = { team = "messages" }
}

run "safe_by_itself" {
  command = plan

  assert {
    condition     = aws_dynamodb_table.fleet.name == "shop-fleet" && aws_dynamodb_table.signal.name == "shop-signal"
    error_message = "the tables must have the names that the program asks for"
  }
  assert {
    condition     = alltrue([for t in [aws_dynamodb_table.fleet, aws_dynamodb_table.signal] : t.deletion_protection_enabled && t.billing_mode == "PAY_PER_REQUEST"])
    error_message = "tables must be protected and on demand"
  }
  assert {
    condition     = alltrue([for t in [aws_dynamodb_table.fleet, aws_dynamodb_table.signal] : one(t.point_in_time_recovery).enabled && one(t.point_in_time_recovery).recovery_period_in_days == 35])
    error_message = "tables must be restorable"
  }
  assert {
    condition     = alltrue([for t in [aws_dynamodb_table.fleet, aws_dynamodb_table.signal] : one(t.ttl).enabled && one(t.ttl).attribute_name == "ttl"])
    error_message = "expired items must go"
  }
  assert {
    condition     = toset([for i in aws_dynamodb_table.fleet.global_secondary_index : "${i.name} ${i.hash_key} ${i.range_key} ${i.projection_type}"]) == toset(["by-index ix ord ALL", "by-shard shard ord ALL"])
    error_message = "the indexes are others"
  }
  assert {
    condition     = aws_s3_bucket.vault.bucket == "shop-vault-123456789012-eu-west-1" && !aws_s3_bucket.vault.force_destroy
    error_message = "the bucket must have a name of its own and stay while something is in it"
  }
  assert {
    condition     = one(aws_s3_bucket_versioning.vault.versioning_configuration).status == "Enabled"
    error_message = "the bucket must keep versions"
  }
  assert {
    condition = alltrue([
      aws_s3_bucket_public_access_block.vault.block_public_acls, aws_s3_bucket_public_access_block.vault.block_public_policy,
      aws_s3_bucket_public_access_block.vault.ignore_public_acls, aws_s3_bucket_public_access_block.vault.restrict_public_buckets,
    ])
    error_message = "the bucket must be closed to the public"
  }
  assert {
    condition     = one(one(aws_s3_bucket_server_side_encryption_configuration.vault.rule).apply_server_side_encryption_by_default).sse_algorithm == "aws:kms"
    error_message = "the bucket must encrypt with the key"
  }
  assert {
    condition     = one(one(aws_s3_bucket_lifecycle_configuration.vault.rule).noncurrent_version_expiration).noncurrent_days == 30 && one(one(aws_s3_bucket_lifecycle_configuration.vault.rule).abort_incomplete_multipart_upload).days_after_initiation == 1
    error_message = "what is left over must go"
  }
  assert {
    condition     = aws_kms_key.master.enable_key_rotation && aws_kms_key.master.deletion_window_in_days == 30
    error_message = "the key must rotate, and its deletion must take its time"
  }
  assert {
    condition     = aws_dynamodb_table.fleet.tags == tomap({ "holdfast:fleet" = "shop", team = "messages" })
    error_message = "tags are missing"
  }
  assert {
    condition     = output.settings["HOLDFAST_STATE"] == "dynamodb:shop"
    error_message = "the workers would look for other tables"
  }
}

run "who_may_use_the_key" {
  command = plan
  variables {
    key_users = ["arn:aws:iam::123456789012:role/operators"]
  }

  assert {
    condition = one([for s in jsondecode(aws_kms_key.master.policy).Statement : s if s.Sid == "Use"]).Condition.ArnLike["aws:PrincipalArn"] == [
      "arn:aws:iam::123456789012:role/shop-worker", "arn:aws:iam::123456789012:role/shop-control", "arn:aws:iam::123456789012:role/operators",
    ]
    error_message = "the key must be for the fleet's roles and the named ones"
  }
  assert {
    condition     = length(setintersection(one([for s in jsondecode(aws_kms_key.master.policy).Statement : s if s.Sid == "Administration"]).Action, ["kms:*", "kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey", "kms:CreateGrant", "kms:ReEncryptFrom"])) == 0
    error_message = "administrators must not be able to use the key"
  }
}

# After an apply, because the policy names the bucket.
run "tls_alone" {
  assert {
    condition     = alltrue([for s in jsondecode(aws_s3_bucket_policy.vault.policy).Statement : s.Effect == "Deny" && s.Action == "s3:*"]) && length(jsondecode(aws_s3_bucket_policy.vault.policy).Statement) == 2
    error_message = "requests without TLS must be refused"
  }
  assert {
    condition     = output.settings["HOLDFAST_MASTER_KEY"] == "awskms:${aws_kms_key.master.arn}" && output.settings["HOLDFAST_VAULT"] == "s3://${aws_s3_bucket.vault.id}/vault"
    error_message = "the settings name another key or bucket"
  }
}

run "to_try_things_with" {
  command = plan
  variables {
    deletion_protection = false
    force_destroy       = true
    access_log_bucket   = "logs"
  }

  assert {
    condition     = !aws_dynamodb_table.signal.deletion_protection_enabled && aws_s3_bucket.vault.force_destroy && aws_s3_bucket_logging.vault[0].target_prefix == "shop/vault/"
    error_message = "the variables must be heard"
  }
}

run "bad_name" {
  command = plan
  variables {
    name = "Shop"
  }
  expect_failures = [var.name]
}

run "name_too_long" {
  command = plan
  variables {
    name = "a-name-of-twenty-nine-letters"
  }
  expect_failures = [var.name]
}

run "bad_values" {
  command = plan
  variables {
    bucket_name                 = "Bucket"
    point_in_time_recovery_days = 36
    noncurrent_version_days     = 1
    key_users                   = ["operators"]
    key_deletion_window_days    = 1
  }
  expect_failures = [var.bucket_name, var.point_in_time_recovery_days, var.noncurrent_version_days, var.key_users, var.key_deletion_window_days]
}
