# Whoever must know learns it: alarms on what the fleet writes and on what AWS tells
# of it, a topic that they go to, a dashboard. The alarms are in alarms.tf.
#
# What it costs in a month, beside the metrics themselves (see infra/emf): each
# of the 50 metrics in alarms $0.10, so about $5; the topic's key $1, unless the
# topic is yours; the dashboard nothing for the first three of an account, else $3.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  tags    = merge({ "holdfast:fleet" = var.name }, var.tags)
  account = data.aws_caller_identity.current.account_id
  region  = data.aws_region.current.region
  # By name, because the key's policy and the topic's speak of each other.
  alarms_arn = "arn:${data.aws_partition.current.partition}:cloudwatch:${local.region}:${local.account}:alarm:${var.name}-*"
  topic_name = "${var.name}-alarms"
  topics     = [var.topic_arn == null ? aws_sns_topic.alarms[0].arn : var.topic_arn]

  # A process that ends by an error or a panic writes no line of metrics any more;
  # its last words in the log are all that there is. ECS tells of tasks that have
  # stopped, but not of a container that is started again within its task. A filter
  # on lines that are no JSON can set no dimension, so the fleet is in the name.
  from_log = { namespace = "Holdfast/Log", name = "${var.name}-WorkersCrashed" }
}

resource "aws_cloudwatch_log_metric_filter" "crashed" {
  name           = "${var.name}-workers-crashed"
  log_group_name = var.worker.log_group_name
  pattern        = "%^(holdfast|panic|fatal\\serror):\\s%"

  metric_transformation {
    namespace = local.from_log.namespace
    name      = local.from_log.name
    value     = "1"
    unit      = "Count"
  }
}

# AWS's own key for SNS lets no alarm publish, so an encrypted topic needs one that
# does.
resource "aws_kms_key" "alarms" {
  count = var.topic_arn == null ? 1 : 0

  description             = "Encrypts the alarms of the Holdfast fleet ${var.name} on their way"
  enable_key_rotation     = true
  deletion_window_in_days = var.key_deletion_window_days
  tags                    = local.tags

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "Administration"
        Effect    = "Allow"
        Principal = { AWS = "arn:${data.aws_partition.current.partition}:iam::${local.account}:root" }
        Action = [
          "kms:CancelKeyDeletion", "kms:CreateAlias", "kms:DeleteAlias", "kms:DescribeKey", "kms:DisableKey", "kms:DisableKeyRotation", "kms:EnableKey",
          "kms:EnableKeyRotation", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:ListGrants", "kms:ListKeyPolicies", "kms:ListKeyRotations",
          "kms:ListResourceTags", "kms:PutKeyPolicy", "kms:RevokeGrant", "kms:ScheduleKeyDeletion", "kms:TagResource", "kms:UntagResource",
          "kms:UpdateAlias", "kms:UpdateKeyDescription",
        ]
        Resource = "*"
      },
      {
        Sid       = "Alarms"
        Effect    = "Allow"
        Principal = { Service = "cloudwatch.amazonaws.com" }
        Action    = ["kms:Decrypt", "kms:GenerateDataKey*"]
        Resource  = "*"
        Condition = { StringEquals = { "aws:SourceAccount" = local.account }, ArnLike = { "aws:SourceArn" = local.alarms_arn } }
      },
    ]
  })
}

resource "aws_sns_topic" "alarms" {
  count = var.topic_arn == null ? 1 : 0

  name              = local.topic_name
  kms_master_key_id = aws_kms_key.alarms[0].arn
  tags              = local.tags
}

resource "aws_sns_topic_policy" "alarms" {
  count = var.topic_arn == null ? 1 : 0

  arn = aws_sns_topic.alarms[0].arn
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Alarms"
      Effect    = "Allow"
      Principal = { Service = "cloudwatch.amazonaws.com" }
      Action    = "sns:Publish"
      Resource  = aws_sns_topic.alarms[0].arn
      Condition = { StringEquals = { "aws:SourceAccount" = local.account }, ArnLike = { "aws:SourceArn" = local.alarms_arn } }
    }]
  })
}

resource "aws_sns_topic_subscription" "email" {
  for_each = var.topic_arn == null ? var.emails : []

  topic_arn = aws_sns_topic.alarms[0].arn
  protocol  = "email"
  endpoint  = each.value
}
