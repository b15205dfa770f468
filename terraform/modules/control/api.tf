# One route: what a path is, the function knows. Who may come in is settled before
# it, unless Holdfast's own keys settle that.

resource "aws_apigatewayv2_api" "admin" {
  name          = "${var.name}-admin"
  description   = "Admin API of the Holdfast fleet ${var.name}"
  protocol_type = "HTTP"
  tags          = local.tags
}

resource "aws_apigatewayv2_integration" "function" {
  api_id                 = aws_apigatewayv2_api.admin.id
  integration_type       = "AWS_PROXY"
  integration_method     = "POST"
  integration_uri        = aws_lambda_function.admin.invoke_arn
  payload_format_version = "2.0"
  timeout_milliseconds   = 30000
}

resource "aws_apigatewayv2_authorizer" "jwt" {
  count = var.authorizer == "jwt" ? 1 : 0

  api_id           = aws_apigatewayv2_api.admin.id
  name             = "jwt"
  authorizer_type  = "JWT"
  identity_sources = ["$request.header.Authorization"]

  jwt_configuration {
    issuer   = var.jwt.issuer
    audience = var.jwt.audience
  }
}

resource "aws_apigatewayv2_route" "all" {
  api_id             = aws_apigatewayv2_api.admin.id
  route_key          = "$default"
  target             = "integrations/${aws_apigatewayv2_integration.function.id}"
  authorization_type = { keys = "NONE", iam = "AWS_IAM", jwt = "JWT" }[var.authorizer]
  authorizer_id      = one(aws_apigatewayv2_authorizer.jwt[*].id)
}

resource "aws_cloudwatch_log_group" "api" {
  name              = "/holdfast/${var.name}/api"
  retention_in_days = var.log_retention_days
  kms_key_id        = var.state.key_arn
  tags              = local.tags
}

resource "aws_apigatewayv2_stage" "default" {
  api_id      = aws_apigatewayv2_api.admin.id
  name        = "$default"
  auto_deploy = true
  tags        = local.tags

  default_route_settings {
    detailed_metrics_enabled = false # those of each route cost extra, and there is one
    throttling_rate_limit    = var.throttle_rate
    throttling_burst_limit   = var.throttle_burst
  }

  # Neither queries nor headers: they may hold what is nobody else's.
  access_log_settings {
    destination_arn = aws_cloudwatch_log_group.api.arn
    format = jsonencode({
      time        = "$context.requestTime"
      requestId   = "$context.requestId"
      ip          = "$context.identity.sourceIp"
      caller      = "$context.identity.userArn"
      subject     = "$context.authorizer.claims.sub"
      method      = "$context.httpMethod"
      path        = "$context.path"
      status      = "$context.status"
      bytes       = "$context.responseLength"
      ms          = "$context.responseLatency"
      refused     = "$context.authorizer.error"
      integration = "$context.integrationErrorMessage"
    })
  }
}

resource "aws_lambda_permission" "api" {
  statement_id  = "api"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.admin.function_name
  principal     = "apigateway.amazonaws.com"
  source_arn    = "${aws_apigatewayv2_api.admin.execution_arn}/*/*"
}
