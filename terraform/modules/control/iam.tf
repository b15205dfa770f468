# What the function may do. It is compared with the calls that its code makes.

locals {
  tables = [var.state.fleet_table_arn, var.state.signal_table_arn]
}

resource "aws_iam_role" "function" {
  name                 = "${var.name}-control" # by which the master key's policy knows it
  description          = "What the admin side of the Holdfast fleet ${var.name} may do"
  permissions_boundary = var.permissions_boundary_arn
  tags                 = local.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "lambda.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy" "state" {
  name = "state"
  role = aws_iam_role.function.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "Records"
        Effect = "Allow"
        Action = [
          "dynamodb:BatchGetItem", "dynamodb:ConditionCheckItem", "dynamodb:DeleteItem", "dynamodb:DescribeTable", "dynamodb:GetItem",
          "dynamodb:PutItem", "dynamodb:Query", "dynamodb:UpdateItem",
        ]
        Resource = local.tables
      },
      {
        Sid      = "Indexes"
        Effect   = "Allow"
        Action   = "dynamodb:Query"
        Resource = "${var.state.fleet_table_arn}/index/*"
      },
      {
        # Uploads, and what a disconnect destroys where no worker is there to do it.
        Sid      = "Objects"
        Effect   = "Allow"
        Action   = ["s3:DeleteObject", "s3:DeleteObjectVersion", "s3:GetObject", "s3:GetObjectVersion", "s3:PutObject"]
        Resource = "${var.state.bucket_arn}/${var.state.vault_prefix}/*"
      },
      {
        Sid      = "Bucket"
        Effect   = "Allow"
        Action   = ["s3:ListBucket", "s3:ListBucketVersions", "s3:GetBucketVersioning"]
        Resource = var.state.bucket_arn
      },
    ]
  })
}

# Of all keysets the function needs the fleet's alone: settings and phone numbers
# are sealed with it. Those of sessions, with ratchets, messages and credentials,
# it cannot unwrap.
resource "aws_iam_role_policy" "key" {
  name = "key"
  role = aws_iam_role.function.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "FleetKeyset"
        Effect   = "Allow"
        Action   = ["kms:Decrypt", "kms:Encrypt"] # the second makes the keyset of a fleet that was never used
        Resource = var.state.key_arn
        Condition = {
          StringEquals = {
            "kms:EncryptionContext:holdfast:partition" = "FLEET"
            "kms:EncryptionContext:holdfast:purpose"   = "keyset"
          }
        }
      },
      {
        Sid      = "Objects"
        Effect   = "Allow"
        Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource = var.state.key_arn
        Condition = {
          StringEquals = { "kms:ViaService" = "s3.${local.region}.${data.aws_partition.current.dns_suffix}" }
          ArnLike      = { "kms:EncryptionContext:aws:s3:arn" = [var.state.bucket_arn, "${var.state.bucket_arn}/*"] }
        }
      },
    ]
  })
}

#tfsec:ignore:aws-iam-no-policy-wildcards -- the streams of one log group
resource "aws_iam_role_policy" "function" {
  name = "function"
  role = aws_iam_role.function.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "Log"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "${aws_cloudwatch_log_group.function.arn}:*"
      },
      {
        Sid      = "FailedEvents"
        Effect   = "Allow"
        Action   = "sqs:SendMessage"
        Resource = aws_sqs_queue.failed.arn
      },
    ]
  })
}
