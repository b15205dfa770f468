# What must outlive every worker: two tables, a bucket, a key. The tables are as
# state/dynamo has them (Tables); the contract test compares.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  tags    = merge({ "holdfast:fleet" = var.name }, var.tags)
  account = data.aws_caller_identity.current.account_id
  region  = data.aws_region.current.region
  bucket  = coalesce(var.bucket_name, "${var.name}-vault-${local.account}-${local.region}")
  # Objects of the vault lie below this.
  prefix = "vault"
}

# The control plane: owners, members, wishes, statuses, events. What is sensitive
# in it is sealed by Holdfast before it gets here, so the tables stay with the key
# that DynamoDB has of its own: one of ours would be asked for at every request.
#tfsec:ignore:aws-dynamodb-table-customer-key #tfsec:ignore:aws-dynamodb-enable-at-rest-encryption
resource "aws_dynamodb_table" "fleet" {
  name                        = "${var.name}-fleet"
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "pk"
  range_key                   = "sk"
  deletion_protection_enabled = var.deletion_protection
  tags                        = local.tags

  attribute {
    name = "pk"
    type = "S"
  }

  attribute {
    name = "sk"
    type = "S"
  }

  attribute {
    name = "ix"
    type = "S"
  }

  attribute {
    name = "shard"
    type = "S"
  }

  attribute {
    name = "ord"
    type = "S"
  }

  # Both indexes are sparse: they have the items with both of their keys.
  global_secondary_index {
    name            = "by-index"
    hash_key        = "ix"
    range_key       = "ord"
    projection_type = "ALL"
  }

  global_secondary_index {
    name            = "by-shard"
    hash_key        = "shard"
    range_key       = "ord"
    projection_type = "ALL"
  }

  ttl {
    attribute_name = "ttl"
    enabled        = true
  }

  point_in_time_recovery {
    enabled                 = true
    recovery_period_in_days = var.point_in_time_recovery_days
  }
}

# Device state, sealed; the same holds for its key.
#tfsec:ignore:aws-dynamodb-table-customer-key #tfsec:ignore:aws-dynamodb-enable-at-rest-encryption
resource "aws_dynamodb_table" "signal" {
  name                        = "${var.name}-signal"
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "pk"
  range_key                   = "sk"
  deletion_protection_enabled = var.deletion_protection
  tags                        = local.tags

  attribute {
    name = "pk"
    type = "S"
  }

  attribute {
    name = "sk"
    type = "S"
  }

  ttl {
    attribute_name = "ttl"
    enabled        = true
  }

  point_in_time_recovery {
    enabled                 = true
    recovery_period_in_days = var.point_in_time_recovery_days
  }
}

# The vault: credentials, and files that wait to be sent, all sealed.
#tfsec:ignore:aws-s3-enable-bucket-logging -- access_log_bucket turns it on; it wants a bucket that is not this one
resource "aws_s3_bucket" "vault" {
  bucket        = local.bucket
  force_destroy = var.force_destroy
  tags          = local.tags
}

resource "aws_s3_bucket_versioning" "vault" {
  bucket = aws_s3_bucket.vault.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "vault" {
  bucket = aws_s3_bucket.vault.id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.master.arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "vault" {
  bucket                  = aws_s3_bucket.vault.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "vault" {
  bucket = aws_s3_bucket.vault.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_policy" "vault" {
  bucket = aws_s3_bucket.vault.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "TLSAlone"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = [aws_s3_bucket.vault.arn, "${aws_s3_bucket.vault.arn}/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
      {
        Sid       = "NoOldTLS"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = [aws_s3_bucket.vault.arn, "${aws_s3_bucket.vault.arn}/*"]
        Condition = { NumericLessThan = { "s3:TlsVersion" = "1.2" } }
      },
    ]
  })

  # A policy and the blocks cannot be changed at the same moment.
  depends_on = [aws_s3_bucket_public_access_block.vault]
}

resource "aws_s3_bucket_lifecycle_configuration" "vault" {
  bucket = aws_s3_bucket.vault.id

  rule {
    id     = "what-was-left-over"
    status = "Enabled"

    filter {}

    noncurrent_version_expiration {
      noncurrent_days = var.noncurrent_version_days
    }

    expiration {
      expired_object_delete_marker = true
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }

  depends_on = [aws_s3_bucket_versioning.vault]
}

resource "aws_s3_bucket_logging" "vault" {
  count = var.access_log_bucket == null ? 0 : 1

  bucket        = aws_s3_bucket.vault.id
  target_bucket = var.access_log_bucket
  target_prefix = "${var.name}/vault/"
}
