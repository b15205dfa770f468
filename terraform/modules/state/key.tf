# The master key wraps the keysets that everything is sealed with, encrypts the
# vault once more, and encrypts the logs of this fleet. Each use has its own
# encryption context, by which the roles' policies tell them apart.

locals {
  root = "arn:${data.aws_partition.current.partition}:iam::${local.account}:root"
  # By name, because the roles are made after the key. The other modules give
  # their roles these names.
  roles = [for r in ["worker", "control"] : "arn:${data.aws_partition.current.partition}:iam::${local.account}:role/${var.name}-${r}"]
}

resource "aws_kms_key" "master" {
  description             = "Master key of the Holdfast fleet ${var.name}: without it nothing that was sealed can be read"
  enable_key_rotation     = true
  deletion_window_in_days = var.key_deletion_window_days
  tags                    = local.tags

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        # Whom IAM lets manage keys may manage this one, and not use it.
        Sid       = "Administration"
        Effect    = "Allow"
        Principal = { AWS = local.root }
        Action = [
          "kms:CancelKeyDeletion", "kms:CreateAlias", "kms:DeleteAlias", "kms:DescribeKey", "kms:DisableKey", "kms:DisableKeyRotation", "kms:EnableKey",
          "kms:EnableKeyRotation", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:ListGrants", "kms:ListKeyPolicies", "kms:ListKeyRotations",
          "kms:ListResourceTags", "kms:PutKeyPolicy", "kms:RevokeGrant", "kms:RotateKeyOnDemand", "kms:ScheduleKeyDeletion", "kms:TagResource",
          "kms:UntagResource", "kms:UpdateAlias", "kms:UpdateKeyDescription",
        ]
        Resource = "*"
      },
      {
        # These roles may, as far as their own policies say so as well. There are no
        # grants: what may be used by whom stands in policies alone.
        Sid       = "Use"
        Effect    = "Allow"
        Principal = { AWS = local.root }
        Action    = ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey"]
        Resource  = "*"
        Condition = { ArnLike = { "aws:PrincipalArn" = concat(local.roles, var.key_users) } }
      },
      {
        Sid       = "Logs"
        Effect    = "Allow"
        Principal = { Service = "logs.${local.region}.${data.aws_partition.current.dns_suffix}" }
        Action    = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"]
        Resource  = "*"
        Condition = {
          ArnLike = {
            "kms:EncryptionContext:aws:logs:arn" = [for group in ["/holdfast/${var.name}/*", "/aws/lambda/${var.name}-control"] :
            "arn:${data.aws_partition.current.partition}:logs:${local.region}:${local.account}:log-group:${group}"]
          }
        }
      },
    ]
  })
}

# For people. Holdfast is told the key itself: an alias can come to mean another.
resource "aws_kms_alias" "master" {
  name          = "alias/holdfast/${var.name}"
  target_key_id = aws_kms_key.master.key_id
}
