# The task's role is what the worker itself may do; the execution role is what ECS
# does before it runs. What stands in the first is compared with the calls that the
# code makes.

locals {
  tables = [var.state.fleet_table_arn, var.state.signal_table_arn]

  # By tasks of this account alone.
  by_tasks = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      Action    = "sts:AssumeRole"
      Condition = {
        StringEquals = { "aws:SourceAccount" = local.account }
        ArnLike      = { "aws:SourceArn" = "arn:${data.aws_partition.current.partition}:ecs:${local.region}:${local.account}:*" }
      }
    }]
  })

  # The repository, where the image is in ECR.
  ecr         = try(regex("^([0-9]{12})\\.dkr\\.ecr\\.([a-z0-9-]+)\\.amazonaws\\.com(?:\\.cn)?/([^:@]+)", var.image), null)
  repository  = local.ecr == null ? [] : ["arn:${data.aws_partition.current.partition}:ecr:${local.ecr[1]}:${local.ecr[0]}:repository/${local.ecr[2]}"]
  secret_arns = distinct([for a in values(var.secrets) : join(":", slice(split(":", a), 0, 7)) if strcontains(a, ":secretsmanager:")])
  param_arns  = distinct([for a in values(var.secrets) : a if strcontains(a, ":ssm:")])
}

resource "aws_iam_role" "task" {
  name                 = "${var.name}-worker" # by which the master key's policy knows it
  description          = "What workers of the Holdfast fleet ${var.name} may do"
  assume_role_policy   = local.by_tasks
  permissions_boundary = var.permissions_boundary_arn
  tags                 = local.tags
}

resource "aws_iam_role_policy" "state" {
  name = "state"
  role = aws_iam_role.task.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "Records"
        Effect = "Allow"
        Action = [
          "dynamodb:BatchGetItem", "dynamodb:ConditionCheckItem", "dynamodb:DeleteItem", "dynamodb:DescribeTable", "dynamodb:DescribeTimeToLive",
          "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query", "dynamodb:UpdateItem",
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
        Sid      = "Objects"
        Effect   = "Allow"
        Action   = ["s3:DeleteObject", "s3:DeleteObjectVersion", "s3:GetObject", "s3:GetObjectVersion", "s3:PutObject"]
        Resource = "${var.state.bucket_arn}/${var.state.vault_prefix}/*"
      },
      {
        # The last two tell holdfast doctor, run as a task, about the bucket.
        Sid    = "Bucket"
        Effect = "Allow"
        Action = [
          "s3:ListBucket", "s3:ListBucketVersions", "s3:GetBucketVersioning",
          "s3:GetBucketPublicAccessBlock", "s3:GetEncryptionConfiguration",
        ]
        Resource = var.state.bucket_arn
      },
    ]
  })
}

# Two uses, by their encryption contexts: keysets are wrapped by the worker,
# objects encrypted by S3 on its behalf. Neither can be used for the other.
resource "aws_iam_role_policy" "key" {
  name = "key"
  role = aws_iam_role.task.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "Keysets"
        Effect    = "Allow"
        Action    = ["kms:Decrypt", "kms:Encrypt"]
        Resource  = var.state.key_arn
        Condition = { StringEquals = { "kms:EncryptionContext:holdfast:purpose" = ["keyset", "check"] } }
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

resource "aws_iam_role" "execution" {
  name                 = "${var.name}-worker-start"
  description          = "What ECS does to start workers of the Holdfast fleet ${var.name}"
  assume_role_policy   = local.by_tasks
  permissions_boundary = var.permissions_boundary_arn
  tags                 = local.tags
}

#tfsec:ignore:aws-iam-no-policy-wildcards -- the streams of one log group, and a login that has no resource
resource "aws_iam_role_policy" "execution" {
  name = "start"
  role = aws_iam_role.execution.id

  policy = jsonencode({
    Version = "2012-10-17"
    # What there is nothing of has no statement.
    Statement = [for s in [
      {
        Sid      = "Log"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = ["${aws_cloudwatch_log_group.worker.arn}:*"]
      },
      {
        # It has no resource: it is a login to the registry.
        Sid      = "Registry"
        Effect   = "Allow"
        Action   = ["ecr:GetAuthorizationToken"]
        Resource = [for r in local.repository : "*"]
      },
      {
        Sid      = "Image"
        Effect   = "Allow"
        Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
        Resource = local.repository
      },
      {
        Sid      = "Secrets"
        Effect   = "Allow"
        Action   = ["secretsmanager:GetSecretValue"]
        Resource = local.secret_arns
      },
      {
        Sid      = "Parameters"
        Effect   = "Allow"
        Action   = ["ssm:GetParameters"]
        Resource = local.param_arns
      },
      {
        Sid      = "SecretsKeys"
        Effect   = "Allow"
        Action   = ["kms:Decrypt"]
        Resource = var.secrets_key_arns
      },
    ] : s if length(s.Resource) > 0]
  })
}
