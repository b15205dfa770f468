# The admin side without a server: the API behind API Gateway, what ECS tells of
# stopped tasks, and a look each minute for what nobody is left to tell. It works
# while no worker does.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  tags    = merge({ "holdfast:fleet" = var.name }, var.tags)
  account = data.aws_caller_identity.current.account_id
  region  = data.aws_region.current.region

  environment = merge(
    var.state.settings,
    {
      HOLDFAST_GATEWAY_AUTH     = var.authorizer
      HOLDFAST_WORKER_CONTAINER = var.container_name
    },
    # Hashes, which give no key away.
    var.authorizer == "keys" ? { HOLDFAST_API_KEYS = join(",", [for n in sort(keys(var.api_keys)) : "${n}:${var.api_keys[n].role}:${var.api_keys[n].sha256}"]) } : {},
    var.authorizer == "iam" ? { HOLDFAST_IAM_ROLES = join(",", [for r in var.iam_roles : "${r.arn}=${r.role}"]) } : {},
    var.environment,
  )
}

# Where Lambda writes by itself, and where one looks.
resource "aws_cloudwatch_log_group" "function" {
  name              = "/aws/lambda/${var.name}-control"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.state.key_arn
  tags              = local.tags
}

#tfsec:ignore:aws-lambda-enable-tracing -- the function asks two services, and its log has the time of each request
resource "aws_lambda_function" "admin" {
  function_name                  = "${var.name}-control"
  description                    = "Admin API of the Holdfast fleet ${var.name}, and its sweep"
  role                           = aws_iam_role.function.arn
  runtime                        = "provided.al2023"
  handler                        = "bootstrap"
  architectures                  = [var.architecture]
  memory_size                    = var.memory
  timeout                        = var.timeout
  reserved_concurrent_executions = var.reserved_concurrency
  tags                           = local.tags

  filename          = var.lambda_zip
  source_code_hash  = var.lambda_zip == null ? null : filebase64sha256(var.lambda_zip)
  s3_bucket         = try(var.lambda_s3.bucket, null)
  s3_key            = try(var.lambda_s3.key, null)
  s3_object_version = try(var.lambda_s3.version, null)

  environment {
    variables = local.environment
  }

  # Metrics are lines in the log, which must stay as they are.
  logging_config {
    log_format = "Text"
    log_group  = aws_cloudwatch_log_group.function.name
  }

  # Of events that failed three times.
  dead_letter_config {
    target_arn = aws_sqs_queue.failed.arn
  }

  tracing_config {
    mode = "PassThrough"
  }

  depends_on = [aws_iam_role_policy.state, aws_iam_role_policy.key, aws_iam_role_policy.function]
}
